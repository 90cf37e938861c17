//go:build linux

package look

import (
	"context"
	"slices"

	"github.com/towpath/towpath/internal/machine"
)

// Earlier is what a look found before, so that the next need not read everything:
// not namespaces that were there, unless a link shows that they are not what they
// were, and not the parameters of the machine's own links that were there.
type Earlier struct {
	Host *machine.Host
	// Again are the inodes of namespaces that are read all the same, as the
	// machine's own always is.
	Again []uint64
}

// space is what was found of a namespace; nil: nothing.
func (e *Earlier) space(c *candidate) *machine.Space {
	if e == nil {
		return nil
	}
	i := slices.IndexFunc(e.Host.Spaces, func(s machine.Space) bool { return s.Inode == c.inode })
	if i < 0 {
		return nil
	}
	return &e.Host.Spaces[i]
}

// keep takes over what was found of a namespace before, and reports whether it did.
// Inodes are used again, cookies are not.
func (l *looker) keep(r *reading) bool {
	old := l.Earlier.space(r.candidate)
	if old == nil || r.name == machine.HostName || old.Cookie != r.space.Cookie || slices.Contains(l.Earlier.Again, r.inode) {
		return false
	}
	s := *old
	s.Name, s.Holders = r.name, r.holders
	s.Links = slices.Clone(old.Links) // the other look's are its own
	r.names = map[int]string{}
	for i := range s.Links {
		link := &s.Links[i]
		r.names[link.Index] = link.Name
		// Names may have been changed since, or be another's by now.
		link.PeerNS, link.ParentNS = l.nameNow(link.PeerNS), l.nameNow(link.ParentNS)
	}
	r.space, r.kept = s, true
	return true
}

// nameNow is what a namespace of the look before is called now; "": it is gone, or
// there is none.
func (l *looker) nameNow(was string) string {
	if was == "" {
		return ""
	}
	if s := l.Earlier.Host.Space(was); s != nil && l.known[s.Inode] != nil {
		return l.known[s.Inode].name
	}
	return ""
}

// doubt reads a namespace that was taken over, if a link that leads to it shows
// that it is not what it was.
func (l *looker) doubt(ctx context.Context, r *reading, index int, peerNS, peer string) {
	if !r.kept {
		return
	}
	if link := r.space.Link(r.names[index]); link != nil && link.PeerNS == peerNS && link.Peer == peer {
		return
	}
	l.readAgain(ctx, r)
}

// readAgain reads a namespace that was taken over. If it cannot be, what was known
// of it stays.
func (l *looker) readAgain(ctx context.Context, r *reading) {
	was := r.space
	r.kept, r.space = false, r.blank()
	r.space.Cookie = was.Cookie
	within, cancel := context.WithTimeout(ctx, l.Limits.PerSpace)
	defer cancel()
	if err := r.readAll(within, l.Limits); err != nil {
		r.space = was
		return
	}
	l.queue = append(l.queue, r)
}

// lose reads those namespaces again of whose links the other ends are gone.
func (l *looker) lose(ctx context.Context) {
	for _, r := range l.order {
		if r.kept && slices.ContainsFunc(r.space.Links, l.lost) {
			l.readAgain(ctx, r)
		}
	}
}

// lost reports whether the other end of a link is not there.
func (l *looker) lost(link machine.Link) bool {
	if link.Peer == "" {
		return false
	}
	i := slices.IndexFunc(l.order, func(o *reading) bool { return o.space.Name == link.PeerNS })
	return i < 0 || l.order[i].space.Link(link.Peer) == nil
}

// lead visits what the links of a namespace that was taken over lead to.
func (l *looker) lead(ctx context.Context, r *reading) {
	for _, link := range r.space.Links {
		for _, name := range []string{link.PeerNS, link.ParentNS} {
			if i := slices.IndexFunc(l.list, func(c *candidate) bool { return c.name == name }); i >= 0 {
				l.want(ctx, l.list[i])
			}
		}
	}
}
