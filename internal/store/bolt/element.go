package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// element is one entry of a branch or leaf page.
type element struct {
	key, value []byte
	child      uint64 // of a branch
	isBucket   bool   // in a leaf
}

// follows sees that keys rise through a tree, and moves last on. Equal is the
// first key of a page to the one by which its branch names it.
func (e element) follows(last *[]byte, id uint64) error {
	if bytes.Compare(e.key, *last) < 0 {
		return fmt.Errorf("page %d has keys out of order", id)
	}
	*last = e.key
	return nil
}

// elements calls do for each element of a page, once it is known to lie in it.
func elements(id uint64, page []byte, do func(element) error) error {
	n := binary.NativeEndian
	count := int(n.Uint16(page[10:]))
	if pageHeader+count*elementSize > len(page) {
		return fmt.Errorf("page %d has no room for %d elements", id, count)
	}
	isBranch := n.Uint16(page[8:]) == branchPage
	if isBranch && count == 0 {
		return fmt.Errorf("page %d is a branch to nowhere", id)
	}
	for i := range count {
		e, ok := parseElement(page[pageHeader+i*elementSize:], isBranch)
		if !ok {
			return fmt.Errorf("element %d of page %d does not lie in it", i, id)
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

// parseElement reads an element from its place in the page, from which its
// offset counts. A branch has offset, key length, page; a leaf has flags,
// offset, key length, value length.
func parseElement(raw []byte, isBranch bool) (element, bool) {
	n := binary.NativeEndian
	if isBranch {
		from, key := uint64(n.Uint32(raw)), uint64(n.Uint32(raw[4:]))
		if from+key > uint64(len(raw)) {
			return element{}, false
		}
		return element{key: raw[from : from+key], child: n.Uint64(raw[8:])}, true
	}
	from, key, value := uint64(n.Uint32(raw[4:])), uint64(n.Uint32(raw[8:])), uint64(n.Uint32(raw[12:]))
	if from+key+value > uint64(len(raw)) {
		return element{}, false
	}
	return element{
		key: raw[from : from+key], value: raw[from+key : from+key+value],
		isBucket: n.Uint32(raw)&bucketElement != 0,
	}, true
}
