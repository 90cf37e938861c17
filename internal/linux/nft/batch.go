//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// Batch collects operations for one transaction: all of them happen, or none.
// The zero Batch is empty and ready. Operations run in the order they were
// added.
type Batch struct {
	ops   []string // what each operation does
	msgs  []opMessage
	setID uint32
	genID *uint32
	errs  []error
}

// opMessage is a message and the operation it belongs to.
type opMessage struct {
	message
	op int
}

// Len gives the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// add appends an operation of the messages; an encoding error is kept for
// Commit.
func (b *Batch) add(text string, msgs []message, err error) {
	if err != nil {
		b.errs = append(b.errs, &OpError{Index: len(b.ops), Op: text, Err: err})
	}
	for _, m := range msgs {
		b.msgs = append(b.msgs, opMessage{m, len(b.ops)})
	}
	b.ops = append(b.ops, text)
}

// one appends an operation of one message.
func (b *Batch) one(text string, typ uint8, flags netlink.HeaderFlags, f rules.Family, attrs []byte, err error) {
	b.add(text, []message{{typ, flags, f, attrs}}, err)
}

// IfGeneration makes the transaction fail with ERESTART unless the ruleset's
// generation, as Conn.Generation reads it, is still this one.
func (b *Batch) IfGeneration(id uint32) { b.genID = &id }

// AddTable makes a table, or changes the flags of one that is there. With
// rules.TableOwner a table without an owner is taken over.
func (b *Batch) AddTable(t rules.Table) {
	attrs, err := encodeTable(t)
	text := "add table " + tableText(t.Family, t.Name)
	if t.Flags&(rules.TableOwner|rules.TablePersist) != 0 {
		text += ownedText
	}
	b.one(text, msgNewTable, netlink.Create, t.Family, attrs, err)
}

// ownedText marks operations that fail on kernels without these flags.
const ownedText = " with flags owner or persist"

// DeleteTable removes a table with all its content.
func (b *Batch) DeleteTable(t rules.Table) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) { ae.String(attrTableName, t.Name) })
	b.one("delete table "+tableText(t.Family, t.Name), msgDelTable, 0, t.Family, attrs, err)
}

// AddChain makes a chain, or sets the policy of one that is there.
func (b *Batch) AddChain(c rules.Chain) {
	attrs, err := encodeChain(c)
	b.one("add chain "+chainText(c), msgNewChain, netlink.Create, c.Family, attrs, err)
}

// DeleteChain removes an empty chain that nothing jumps to.
func (b *Batch) DeleteChain(c rules.Chain) {
	attrs, err := encodeChain(rules.Chain{Table: c.Table, Name: c.Name})
	b.one("delete chain "+chainText(c), msgDelChain, 0, c.Family, attrs, err)
}

// AddDevices adds devices to a base chain of the netdev family that is there
// (Linux 6.4). One that it has is no error. From 6.16 on the kernel takes names
// of devices that do not exist yet, older ones refuse them.
func (b *Batch) AddDevices(c rules.Chain, devices []string) {
	attrs, err := encodeDevices(c, devices)
	b.one(fmt.Sprintf("add devices %q to chain %s", devices, chainText(c)), msgNewChain, netlink.Create, c.Family, attrs, err)
}

// DeleteDevices takes devices off a base chain of the netdev family.
func (b *Batch) DeleteDevices(c rules.Chain, devices []string) {
	attrs, err := encodeDevices(c, devices)
	b.one(fmt.Sprintf("delete devices %q of chain %s", devices, chainText(c)), msgDelChain, 0, c.Family, attrs, err)
}

// FlushChain removes all rules of a chain.
func (b *Batch) FlushChain(c rules.Chain) {
	attrs, err := ruleAttributes(c, 0)
	b.one("flush chain "+chainText(c), msgDelRule, 0, c.Family, attrs, err)
}

// DeleteRule removes the rule with that handle.
func (b *Batch) DeleteRule(c rules.Chain, handle uint64) {
	attrs, err := ruleAttributes(c, handle)
	b.one(fmt.Sprintf("delete rule %d of chain %s", handle, chainText(c)), msgDelRule, 0, c.Family, attrs, err)
}

// ruleAttributes names the rules of a chain, or one of them.
func ruleAttributes(c rules.Chain, handle uint64) ([]byte, error) {
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrRuleTable, c.Table)
		ae.String(attrRuleChain, c.Name)
		if handle != 0 {
			ae.Uint64(attrRuleHandle, handle)
		}
	})
}

// InsertRule puts a rule without anonymous sets before the one with that
// handle.
func (b *Batch) InsertRule(c rules.Chain, r rules.Rule, before uint64) {
	attrs, err := encodeRule(c, r, nil)
	position, perr := attributes(func(ae *netlink.AttributeEncoder) { ae.Uint64(attrRulePosition, before) })
	b.one(fmt.Sprintf("insert rule %s %s", chainText(c), r), msgNewRule, netlink.Create, c.Family, append(attrs, position...), errors.Join(err, perr))
}

// AddRule appends a rule to a chain, with the anonymous sets it holds.
func (b *Batch) AddRule(c rules.Chain, r rules.Rule) {
	text := fmt.Sprintf("add rule %s %s", chainText(c), r)
	msgs, ids, err := b.anonymousSets(c, r)
	if err != nil {
		b.add(text, nil, err)
		return
	}
	attrs, err := encodeRule(c, r, ids)
	msgs = append(msgs, message{msgNewRule, netlink.Create | netlink.Append, c.Family, attrs})
	b.add(text, msgs, err)
}

// anonymousSets makes the sets a rule holds and numbers them.
func (b *Batch) anonymousSets(c rules.Chain, r rules.Rule) ([]message, []uint32, error) {
	var msgs []message
	var ids []uint32
	for _, e := range r.Exprs {
		look, ok := e.(rules.Lookup)
		if !ok || look.Anon == nil {
			continue
		}
		b.setID++
		s := look.Anon.Set()
		s.Family, s.Table, s.Name = c.Family, c.Table, anonymousName(look)
		attrs, err := encodeSet(s, b.setID, len(look.Anon.Elements))
		if err != nil {
			return nil, nil, err
		}
		elements, err := elementMessages(msgNewSetElem, netlink.Create, s, b.setID, look.Anon.Elements)
		if err != nil {
			return nil, nil, err
		}
		msgs = append(append(msgs, message{msgNewSet, netlink.Create, c.Family, attrs}), elements...)
		ids = append(ids, b.setID)
	}
	return msgs, ids, nil
}

// AddSet makes a set or map.
func (b *Batch) AddSet(s rules.Set) {
	b.setID++
	attrs, err := encodeSet(s, b.setID, 0)
	b.one("add set "+setText(s), msgNewSet, netlink.Create, s.Family, attrs, err)
}

// DeleteSet removes a set or map no rule uses.
func (b *Batch) DeleteSet(s rules.Set) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrSetTable, s.Table)
		ae.String(attrSetName, s.Name)
	})
	b.one("delete set "+setText(s), msgDelSet, 0, s.Family, attrs, err)
}

// AddElements adds elements to a set or map. An element that is there with the
// same value is no error, with another value it is EEXIST.
func (b *Batch) AddElements(s rules.Set, elements []rules.Element) {
	msgs, err := elementMessages(msgNewSetElem, netlink.Create, s, 0, elements)
	b.add(elementText("add", s, elements), msgs, err)
}

// DeleteElements removes elements by their keys. One that is not there is
// ENOENT, and nothing of the transaction happens.
func (b *Batch) DeleteElements(s rules.Set, elements []rules.Element) {
	msgs, err := elementMessages(msgDelSetElem, 0, s, 0, elements)
	b.add(elementText("delete", s, elements), msgs, err)
}

// FlushSet removes all elements of a set or map.
func (b *Batch) FlushSet(s rules.Set) {
	attrs, err := encodeElements(s, 0, nil, true)
	b.one("flush set "+setText(s), msgDelSetElem, 0, s.Family, attrs, err)
}

// AddTableDef makes a table with all its content.
func (b *Batch) AddTableDef(t rules.TableDef) {
	b.AddTable(t.Table)
	for _, s := range t.Sets {
		b.AddSet(s.Set)
	}
	for _, c := range t.Chains {
		b.AddChain(c.Chain)
	}
	for _, s := range t.Sets {
		if len(s.Elements) > 0 {
			b.AddElements(s.Set, s.Elements)
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			b.AddRule(c.Chain, r)
		}
	}
}

func tableText(f rules.Family, name string) string { return f.String() + " " + name }

func chainText(c rules.Chain) string { return tableText(c.Family, c.Table) + " " + c.Name }

func setText(s rules.Set) string { return tableText(s.Family, s.Table) + " " + s.Name }

// elementText names the operation and its first element.
func elementText(verb string, s rules.Set, elements []rules.Element) string {
	text := fmt.Sprintf("%s %d elements of %s", verb, len(elements), setText(s))
	if len(elements) > 0 {
		text += " from " + rules.FormatElement(s, elements[0])
	}
	return text
}

// OpError tells which operation of a batch the kernel refused. errors.Is finds
// the errno in it.
type OpError struct {
	Index   int    // of the operation, from 0; -1: the transaction as a whole
	Op      string // what it does
	Err     error  // the errno
	Message string // the kernel's own text, if it gave one
}

// Error gives operation, errno and the kernel's text.
func (e *OpError) Error() string {
	text := fmt.Sprintf("op %d, %s: %v", e.Index, e.Op, e.Err)
	if e.Index < 0 {
		text = fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

// ErrTooLarge is wrapped by the error of a batch the send buffer cannot hold.
// It must be divided.
var ErrTooLarge = errors.New("transaction larger than the send buffer of the socket")

// ErrTableFlags is wrapped by the error of a table whose flags the kernel does
// not know: owner needs Linux 5.12, persist 6.9.
var ErrTableFlags = errors.New("kernel without table flags owner and persist")

// Commit sends the batch as one atomic transaction and waits for the answer.
// An empty batch does nothing. A refusal is an *OpError. When ctx ends in the
// middle, the transaction may have happened.
func (c *Conn) Commit(ctx context.Context, b *Batch) error {
	if len(b.errs) > 0 {
		return fmt.Errorf("commit nf_tables: %w", errors.Join(b.errs...))
	}
	if len(b.msgs) == 0 {
		return nil
	}
	defer c.lock()()
	err := withContext(ctx, c.sock, func() error { return c.commit(b) })
	if err != nil {
		return fmt.Errorf("commit nf_tables: %w", err)
	}
	return nil
}

// commit sends the batch: message i has the sequence number first+1+i.
func (c *Conn) commit(b *Batch) error {
	first := c.seq + 1
	c.seq = first + uint32(len(b.msgs)) + 1
	datagram, err := b.encode(first)
	if err != nil {
		return err
	}
	if err := c.send(datagram); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			size, _ := c.sock.WriteBuffer()
			return fmt.Errorf("send %d bytes with a buffer of %d: %w: %w", len(datagram), size, ErrTooLarge, err)
		}
		return fmt.Errorf("send %d bytes: %w", len(datagram), err)
	}
	return c.answer(b, first)
}

// encode writes the transaction. Only the last operation asks for an answer:
// refused ones answer anyway, and one answer each would overflow the receive
// buffer.
func (b *Batch) encode(first uint32) ([]byte, error) {
	var begin []byte
	if b.genID != nil {
		var err error
		begin, err = attributes(func(ae *netlink.AttributeEncoder) { ae.Uint32(batchGenID, *b.genID) })
		if err != nil {
			return nil, err
		}
	}
	out := appendMessage(nil, msgBatchBegin, 0, first, 0, subsysNFTables, begin)
	for i, m := range b.msgs {
		flags := m.flags
		if i == len(b.msgs)-1 {
			flags |= netlink.Acknowledge
		}
		out = appendMessage(out, subsysNFTables<<8|uint16(m.typ), flags, first+1+uint32(i), uint8(m.family), 0, m.attrs)
	}
	return appendMessage(out, msgBatchEnd, 0, first+1+uint32(len(b.msgs)), 0, subsysNFTables, nil), nil
}

// answer reads answers up to that of the last operation, or one to the
// transaction as a whole, and gives the first refusal.
func (c *Conn) answer(b *Batch, first uint32) error {
	var refusal error
	last := first + uint32(len(b.msgs))
	for {
		msgs, err := receive(c.raw, c.buf[:])
		if err != nil {
			return fmt.Errorf("read answer: %w", errors.Join(refusal, err))
		}
		for _, m := range msgs {
			// Late answers to earlier transactions have lower numbers.
			if m.typ != unix.NLMSG_ERROR || m.seq-first > last-first+1 {
				continue
			}
			errno, text := m.ack()
			if errno != 0 && refusal == nil {
				refusal = b.refusal(int(m.seq-first)-1, errno, text)
			}
			if m.seq == last || m.seq == first || m.seq == last+1 {
				return refusal
			}
		}
	}
}

// refusal says which operation message i belongs to.
func (b *Batch) refusal(i int, errno syscall.Errno, text string) error {
	e := &OpError{Index: -1, Op: "transaction", Err: errno, Message: text}
	if i >= 0 && i < len(b.msgs) {
		e.Index, e.Op = b.msgs[i].op, b.ops[b.msgs[i].op]
	}
	if strings.HasSuffix(e.Op, ownedText) && slices.Contains([]syscall.Errno{unix.EINVAL, unix.EOPNOTSUPP}, errno) {
		e.Err = fmt.Errorf("%w: %w", ErrTableFlags, errno)
	}
	return e
}
