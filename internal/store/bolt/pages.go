package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// bbolt follows page numbers, offsets and lengths of the file through mapped
// memory without looking at them: damage makes it fault, which ends the
// process, or go in circles until memory is gone. So the file is checked here
// first, as plain bytes. The layout is that of bbolt's format version 2
// (internal/common/page.go, meta.go, bucket.go), which has not changed since
// 2014; numbers are in the machine's own byte order.
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64 // the last 8 bytes are the FNV-1a sum of those before

	pageHeader    = 16 // number 8, kind 2, count 2, further pages 4
	elementSize   = 16 // of branches and leaves alike
	bucketHeader  = 16 // page of the root 8, sequence 8
	bucketElement = 1  // flag of a leaf element that is a bucket
	countInFirst  = 0xFFFF

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
)

// meta is what a meta page tells.
type meta struct {
	pageSize             uint32
	root, freelist, high uint64 // page numbers; high is behind the last page
	txn                  uint64
}

// pageFile is a file under examination.
type pageFile struct {
	data []byte
	meta meta
	seen []bool // by page number: it has its one use
}

// verifyPages reads the bytes of a bbolt file: every page has one use, in a
// tree or as free, and every element lies within its page, sorted by key.
func verifyPages(data []byte) error {
	m, err := newestMeta(data)
	if err != nil {
		return err
	}
	if most := uint64(len(data)) / uint64(m.pageSize); m.high < 2 || m.high > most {
		return fmt.Errorf("it has %d pages of %d", most, m.high)
	}
	f := &pageFile{data: data, meta: m, seen: make([]bool, m.high)}
	f.seen[0], f.seen[1] = true, true
	if err := f.verifyFreelist(); err != nil {
		return err
	}
	if err := f.verifyTree(m.root, new([]byte)); err != nil {
		return err
	}
	if lost := slices.Index(f.seen, false); lost >= 0 {
		return fmt.Errorf("page %d is neither used nor free", lost)
	}
	return nil
}

// newestMeta finds the meta page that is valid and has the highest transaction:
// one of the two may be half written. The second one's place depends on the
// page size, which was that of the machine that made the file.
func newestMeta(data []byte) (meta, error) {
	first, ok := parseMeta(data, 0)
	newest, found := first, ok
	for size := 1 << 10; size <= 1<<16; size <<= 1 {
		if m, ok := parseMeta(data, size); ok && int(m.pageSize) == size && (!found || m.txn > newest.txn) {
			newest, found = m, true
		}
	}
	if !found {
		return meta{}, fmt.Errorf("neither meta page is valid")
	}
	return newest, nil
}

func parseMeta(data []byte, at int) (meta, bool) {
	if len(data) < at+pageHeader+metaSize {
		return meta{}, false
	}
	raw := data[at+pageHeader:][:metaSize]
	sum := fnv.New64a()
	_, _ = sum.Write(raw[:metaSize-8])
	n := binary.NativeEndian
	m := meta{
		pageSize: n.Uint32(raw[8:]), root: n.Uint64(raw[16:]), freelist: n.Uint64(raw[32:]),
		high: n.Uint64(raw[40:]), txn: n.Uint64(raw[48:]),
	}
	ok := n.Uint32(raw) == metaMagic && n.Uint32(raw[4:]) == metaVersion && n.Uint64(raw[56:]) == sum.Sum64()
	return m, ok && m.pageSize >= 1<<10 && m.pageSize <= 1<<16
}

// claim gives a page its use and returns its bytes, those of further pages
// that belong to it included.
func (f *pageFile) claim(id uint64) ([]byte, error) {
	if id >= f.meta.high {
		return nil, fmt.Errorf("page %d is not in the file", id)
	}
	size := uint64(f.meta.pageSize)
	page := f.data[id*size:]
	n := binary.NativeEndian
	if n.Uint64(page) != id {
		return nil, fmt.Errorf("page %d calls itself %d", id, n.Uint64(page))
	}
	further := uint64(n.Uint32(page[12:]))
	if id+further >= f.meta.high {
		return nil, fmt.Errorf("page %d does not end in the file", id)
	}
	for i := id; i <= id+further; i++ {
		if err := f.use(i); err != nil {
			return nil, err
		}
	}
	return page[:(further+1)*size], nil
}

func (f *pageFile) use(id uint64) error {
	if id >= f.meta.high || f.seen[id] {
		return fmt.Errorf("page %d is used twice, or not in the file", id)
	}
	f.seen[id] = true
	return nil
}

func (f *pageFile) verifyFreelist() error {
	page, err := f.claim(f.meta.freelist)
	if err != nil {
		return err
	}
	n := binary.NativeEndian
	count, ids := uint64(n.Uint16(page[10:])), page[pageHeader:]
	if count == countInFirst {
		count, ids = n.Uint64(ids), ids[8:]
	}
	if n.Uint16(page[8:]) != freelistPage || count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d is not a list of free pages", f.meta.freelist)
	}
	for i := range count {
		if err := f.use(n.Uint64(ids[i*8:])); err != nil {
			return err
		}
	}
	return nil
}

// verifyTree goes through the tree below a page in the order of its keys; last
// is the key it came by. No page is met twice, so this ends.
func (f *pageFile) verifyTree(id uint64, last *[]byte) error {
	page, err := f.claim(id)
	if err != nil {
		return err
	}
	switch kind := binary.NativeEndian.Uint16(page[8:]); kind {
	case branchPage:
		return elements(id, page, func(e element) error {
			if err := e.follows(last, id); err != nil {
				return err
			}
			return f.verifyTree(e.child, last)
		})
	case leafPage:
		return f.verifyLeaf(id, page, last)
	default:
		return fmt.Errorf("page %d of a tree is of kind %#x", id, kind)
	}
}

func (f *pageFile) verifyLeaf(id uint64, page []byte, last *[]byte) error {
	return elements(id, page, func(e element) error {
		if err := e.follows(last, id); err != nil || !e.isBucket {
			return err
		}
		if len(e.value) < bucketHeader {
			return fmt.Errorf("page %d has a bucket without a header", id)
		}
		if root := binary.NativeEndian.Uint64(e.value); root != 0 {
			return f.verifyTree(root, new([]byte))
		}
		inline := e.value[bucketHeader:] // a small bucket: a leaf without a page
		if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
			return fmt.Errorf("page %d has an inline bucket that is no leaf", id)
		}
		return f.verifyLeaf(id, inline, new([]byte))
	})
}
