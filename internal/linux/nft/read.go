//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump that other writers interrupt is begun again.
const dumpTries = 50

// ErrInterrupted is wrapped by the error of a read that other writers
// interrupted every time.
var ErrInterrupted = errors.New("rules kept changing while they were read")

// object is one message of a dump.
type object struct {
	family rules.Family
	attrs  []byte
}

// dump asks for all objects of a kind. The kernel marks a dump that a change
// interrupted; it is begun again.
func (c *Conn) dump(ctx context.Context, typ uint8, f rules.Family, attrs []byte) ([]object, error) {
	defer c.lock()()
	var out []object
	err := withContext(ctx, c.sock, func() error {
		for range dumpTries {
			var err error
			if out, err = c.dumpOnce(typ, f, attrs); !errors.Is(err, errDumpInterrupted) {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return ErrInterrupted
	})
	return out, err
}

// errDumpInterrupted reports NLM_F_DUMP_INTR or EINTR.
var errDumpInterrupted = errors.New("dump interrupted")

func (c *Conn) dumpOnce(typ uint8, f rules.Family, attrs []byte) ([]object, error) {
	c.seq++
	seq := c.seq
	request := appendMessage(nil, subsysNFTables<<8|uint16(typ), netlink.Dump, seq, uint8(f), 0, attrs)
	if err := c.send(request); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	var out []object
	interrupted, size := false, 0
	for {
		msgs, err := receive(c.raw, c.buf[:])
		if err != nil {
			return nil, fmt.Errorf("read dump: %w", err)
		}
		for _, m := range msgs {
			if m.seq != seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			// What is beyond the limit is read all the same: until its end the
			// kernel takes no other request.
			size += len(m.body)
			tooMuch := c.limit > 0 && size > c.limit
			switch {
			case m.typ != unix.NLMSG_DONE && m.typ != unix.NLMSG_ERROR:
			case tooMuch:
				return nil, ErrTooMuch
			default:
				return out, dumpEnd(m, interrupted)
			}
			if len(m.body) >= sizeofGenmsg && !tooMuch {
				// The buffer is used again for the next datagram.
				out = append(out, object{m.family(), slices.Clone(m.attrs())})
			}
		}
	}
}

// dumpEnd gives the result of a dump from its last message, which carries an
// errno in its first four bytes.
func dumpEnd(m received, interrupted bool) error {
	errno, text := m.ack()
	switch {
	case errno == unix.EINTR, interrupted:
		return errDumpInterrupted
	case errno != 0 && text != "":
		return fmt.Errorf("%w: %s", errno, text)
	case errno != 0:
		return errno
	}
	return nil
}

// Tables lists the tables of a family; 0 means all families.
func (c *Conn) Tables(ctx context.Context, f rules.Family) ([]rules.Table, error) {
	objects, err := c.dump(ctx, msgGetTable, f, nil)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	return decodeAll(objects, decodeTable)
}

// decodeAll decodes every object.
func decodeAll[T any](objects []object, decode func(object) (T, error)) ([]T, error) {
	out := make([]T, 0, len(objects))
	for _, o := range objects {
		v, err := decode(o)
		if err != nil {
			return nil, fmt.Errorf("decode nf_tables: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

// BaseChains lists the base chains of all tables of all families.
func (c *Conn) BaseChains(ctx context.Context) ([]rules.Chain, error) {
	objects, err := c.dump(ctx, msgGetChain, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	all, err := decodeAll(objects, decodeChain)
	return slices.DeleteFunc(all, func(ch rules.Chain) bool { return !ch.Base() }), err
}

// Chains lists the chains of a table.
func (c *Conn) Chains(ctx context.Context, f rules.Family, table string) ([]rules.Chain, error) {
	objects, err := c.dump(ctx, msgGetChain, f, nil)
	if err != nil {
		return nil, fmt.Errorf("read chains of %s: %w", tableText(f, table), err)
	}
	all, err := decodeAll(objects, decodeChain)
	return slices.DeleteFunc(all, func(ch rules.Chain) bool { return ch.Table != table }), err
}

// Sets lists the named sets and maps of a table, without elements.
func (c *Conn) Sets(ctx context.Context, f rules.Family, table string) ([]rules.Set, error) {
	all, err := c.allSets(ctx, f, table)
	if err != nil {
		return nil, err
	}
	var out []rules.Set
	for _, s := range all {
		if !s.anonymous {
			out = append(out, s.Set)
		}
	}
	return out, nil
}

func (c *Conn) allSets(ctx context.Context, f rules.Family, table string) ([]kernelSet, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) { ae.String(attrSetTable, table) })
	if err != nil {
		return nil, err
	}
	objects, err := c.dump(ctx, msgGetSet, f, attrs)
	if err != nil {
		return nil, fmt.Errorf("read sets of %s: %w", tableText(f, table), err)
	}
	return decodeAll(objects, decodeSet)
}

// Elements lists the elements of a set or map, sorted as nft prints them. Only
// Family, Table, Name, types and flags of s are used, as Sets gives them.
//
// A set that has just grown is moved to a larger hash table by a worker, some time
// after its transaction, and a dump has to find its place by counting
// (nft_rhash_walk): what it has told already it tells again, and as much is left
// out. No generation says so, but an element that comes twice; the dump is begun again.
func (c *Conn) Elements(ctx context.Context, s rules.Set) ([]rules.Element, error) {
	for range dumpTries {
		raw, err := c.rawElements(ctx, s)
		if err != nil {
			return nil, err
		}
		if s.Flags&rules.SetInterval == 0 && repeats(raw) {
			continue
		}
		out := fromRaw(s, raw)
		rules.SortElements(s, out)
		return out, nil
	}
	return nil, fmt.Errorf("read elements of %s: %w", setText(s), ErrInterrupted)
}

// repeats says whether an element comes twice.
func repeats(list []rawElement) bool {
	seen := make(map[string]bool, len(list))
	for _, e := range list {
		if seen[string(e.Key)] {
			return true
		}
		seen[string(e.Key)] = true
	}
	return false
}

func (c *Conn) rawElements(ctx context.Context, s rules.Set) ([]rawElement, error) {
	attrs, err := encodeElements(s, 0, nil, true)
	if err != nil {
		return nil, err
	}
	objects, err := c.dump(ctx, msgGetSetElem, s.Family, attrs)
	if err != nil {
		return nil, fmt.Errorf("read elements of %s: %w", setText(s), err)
	}
	var raw []rawElement
	for _, o := range objects {
		part, err := decodeElements(o.attrs)
		if err != nil {
			return nil, fmt.Errorf("decode elements of %s: %w", setText(s), err)
		}
		raw = append(raw, part...)
	}
	return raw, nil
}

// Rules lists the rules of a chain in order, with the content of their
// anonymous sets and their comments, as of one generation. Counters have their
// values.
func (c *Conn) Rules(ctx context.Context, f rules.Family, table, chain string) ([]rules.Rule, error) {
	return atOneGeneration(ctx, c, func() ([]rules.Rule, error) {
		sets, err := c.allSets(ctx, f, table)
		if err != nil {
			return nil, err
		}
		return c.rules(ctx, f, table, chain, sets)
	})
}

// atOneGeneration reads until no transaction came between. An error of a read
// that one did come between, such as a set that is gone, does not count.
func atOneGeneration[T any](ctx context.Context, c *Conn, read func() (T, error)) (T, error) {
	var zero T
	for range dumpTries {
		before, err := c.Generation(ctx)
		if err != nil {
			return zero, err
		}
		v, readErr := read()
		after, err := c.Generation(ctx)
		if err != nil {
			return zero, err
		}
		if before == after {
			return v, readErr
		}
	}
	return zero, fmt.Errorf("read nf_tables: %w", ErrInterrupted)
}

func (c *Conn) rules(ctx context.Context, f rules.Family, table, chain string, sets []kernelSet) ([]rules.Rule, error) {
	attrs, err := ruleAttributes(rules.Chain{Table: table, Name: chain}, 0)
	if err != nil {
		return nil, err
	}
	objects, err := c.dump(ctx, msgGetRule, f, attrs)
	if err != nil {
		return nil, fmt.Errorf("read rules of %s %s: %w", tableText(f, table), chain, err)
	}
	out, err := decodeAll(objects, decodeRule)
	if err != nil {
		return nil, err
	}
	for _, r := range out {
		if err := c.fillAnonymous(ctx, r.Exprs, sets); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fillAnonymous replaces the kernel's names of anonymous sets by their content.
func (c *Conn) fillAnonymous(ctx context.Context, exprs []rules.Expr, sets []kernelSet) error {
	for i, e := range exprs {
		look, ok := e.(rules.Lookup)
		if !ok {
			continue
		}
		at := slices.IndexFunc(sets, func(s kernelSet) bool { return s.anonymous && s.Name == look.Set })
		if at < 0 {
			continue
		}
		s := sets[at].Set
		elements, err := c.Elements(ctx, s)
		if err != nil {
			return err
		}
		look.Set = ""
		look.Anon = &rules.AnonymousSet{
			KeyType: s.KeyType, DataType: s.DataType, Flags: s.Flags &^ rules.SetConstant,
			KeyLen: s.KeyLen, DataLen: s.DataLen, Elements: elements,
		}
		exprs[i] = look
	}
	return nil
}

// ReadTable reads a table with all its content, as of one generation.
func (c *Conn) ReadTable(ctx context.Context, f rules.Family, name string) (rules.TableDef, error) {
	return atOneGeneration(ctx, c, func() (rules.TableDef, error) { return c.readTable(ctx, f, name) })
}

func (c *Conn) readTable(ctx context.Context, f rules.Family, name string) (rules.TableDef, error) {
	var t rules.TableDef
	var err error
	if t.Table, err = c.table(ctx, f, name); err != nil {
		return t, fmt.Errorf("read table %s: %w", tableText(f, name), err)
	}
	sets, err := c.allSets(ctx, f, name)
	if err != nil {
		return t, err
	}
	for _, s := range sets {
		if s.anonymous {
			continue
		}
		elements, err := c.Elements(ctx, s.Set)
		if err != nil {
			return t, err
		}
		t.Sets = append(t.Sets, rules.SetDef{Set: s.Set, Elements: elements})
	}
	return t, c.readChains(ctx, &t, sets)
}

// readChains adds the chains of the table with one dump of all its rules.
func (c *Conn) readChains(ctx context.Context, t *rules.TableDef, sets []kernelSet) error {
	chains, err := c.Chains(ctx, t.Family, t.Name)
	if err != nil {
		return err
	}
	for _, ch := range chains {
		list, err := c.rules(ctx, t.Family, t.Name, ch.Name, sets)
		if err != nil {
			return err
		}
		t.Chains = append(t.Chains, rules.ChainDef{Chain: ch, Rules: list})
	}
	return nil
}

// ReadTables reads the tables of all families with all their content.
func (c *Conn) ReadTables(ctx context.Context) ([]rules.TableDef, error) {
	tables, err := c.Tables(ctx, 0)
	if err != nil {
		return nil, err
	}
	var out []rules.TableDef
	for _, t := range tables {
		def, err := c.ReadTable(ctx, t.Family, t.Name)
		if errors.Is(err, unix.ENOENT) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		out = append(out, def)
	}
	return out, nil
}
