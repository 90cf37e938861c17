package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"golang.org/x/sys/unix"
)

// How many names there are.
const (
	localNames = 1000
	keptNames  = 100
)

// kind is which names are asked for.
type kind string

const (
	local kind = "local"  // of other containers
	kept  kind = "cached" // external, and asked for before
	fresh kind = "fresh"  // external, each only once
)

// localName is the name of a container, fixed width.
func localName(i int) string { return fmt.Sprintf("w%03d", i) }

// answered is what one run of clients saw.
type answered struct {
	Queries  int           `json:"queries"`
	Errors   int           `json:"errors"`
	Took     time.Duration `json:"took"`
	P50, P99 time.Duration
}

// load is the clients: each has a socket and asks one question at a time. They
// use plain blocking calls, each on a thread, as most clients do.
func load(args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	ns := fs.String("ns", "", "network namespace to ask from")
	server := fs.String("server", "", "address and port")
	clients := fs.Int("clients", 1, "how many at once")
	period := fs.Duration("for", time.Second, "how long")
	count := fs.Int64("count", 0, "how many queries, instead of how long")
	names := fs.String("names", string(local), "local, cached or fresh")
	pinned := fs.Bool("pinned", false, "ask from the first processor alone")
	if err := fs.Parse(args); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(*server)
	if err != nil {
		return err
	}
	socks, err := openSockets(*ns, at, *clients)
	if err != nil {
		return err
	}
	var left *atomic.Int64
	if *count > 0 {
		left = &atomic.Int64{}
		left.Store(*count)
	}
	if *pinned {
		if err := pin(os.Getpid(), true); err != nil {
			return err
		}
	}
	a, err := ask(socks, kind(*names), *period, left)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

// pin keeps a process on the first processor, or lets it use all again. Threads
// that come later have it from the ones that make them (sched_setaffinity(2)).
func pin(pid int, first bool) error {
	var cpus unix.CPUSet
	if cpus.Set(0); !first {
		cpus.Fill()
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.SchedSetaffinity(tid, &cpus)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin thread %s: %w", t.Name(), err)
		}
	}
	return nil
}

// openSockets opens a connected socket a client, inside the namespace.
func openSockets(ns string, server netip.AddrPort, n int) ([]int, error) {
	f, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var socks []int
	err = netns.Do(f, func() error {
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("socket", err)
			}
			socks = append(socks, fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())}); err != nil {
				return os.NewSyscallError("connect", err)
			}
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		return nil
	})
	return socks, err
}

// ask lets the clients ask until the time is over or none is left.
func ask(socks []int, names kind, period time.Duration, left *atomic.Int64) (answered, error) {
	took := make([][]time.Duration, len(socks))
	failed := make([]int, len(socks))
	var wg sync.WaitGroup
	began := time.Now()
	for i, fd := range socks {
		wg.Go(func() {
			runtime.LockOSThread()
			took[i], failed[i] = client(fd, newQuestion(names), began.Add(period), left)
		})
	}
	wg.Wait()
	a := answered{Took: time.Since(began)}
	all := slices.Concat(took...)
	for _, n := range failed {
		a.Errors += n
	}
	if len(all) == 0 {
		return a, errors.New("no query was answered")
	}
	slices.Sort(all)
	a.Queries, a.P50, a.P99 = len(all), all[len(all)/2], all[len(all)*99/100]
	return a, nil
}

// client asks one question after the other.
func client(fd int, q *query, end time.Time, left *atomic.Int64) (took []time.Duration, failed int) {
	took = make([]time.Duration, 0, 1<<17)
	answer := make([]byte, 4096)
	began := time.Now()
	for left == nil && began.Before(end) || left != nil && left.Add(-1) >= 0 {
		msg := q.next()
		if _, err := unix.Write(fd, msg); err != nil {
			failed++
			continue
		}
		good := receive(fd, msg, answer)
		now := time.Now()
		if good {
			took = append(took, now.Sub(began))
		} else {
			failed++
		}
		began = now
	}
	return took, failed
}

// receive waits for the answer to a query, past those to queries that were given
// up. A socket with a time-out is woken by every signal, and Go sends itself some.
func receive(fd int, msg, answer []byte) bool {
	for {
		n, err := unix.Read(fd, answer)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false
		case n > 1 && answer[0] == msg[0] && answer[1] == msg[1]:
			return right(answer[:n])
		}
	}
}

// right tells whether an answer has a record.
func right(answer []byte) bool {
	return len(answer) > 12 && answer[2]&0x80 != 0 && answer[3]&0xf == 0 && binary.BigEndian.Uint16(answer[6:]) > 0
}

// query is a query for an A record; the digits of its name change.
type query struct {
	msg    []byte
	names  kind
	digits []byte // in msg
	number uint64
}

func newQuestion(names kind) *query {
	first, rest := map[kind]string{local: "w000", kept: "c000", fresh: "f0000000000000"}[names], []string{"example", "org"}
	if names == local {
		rest = nil
	}
	q := &query{names: names, number: rand.Uint64(), msg: []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}}
	at := len(q.msg) + 2
	for _, label := range append([]string{first}, rest...) {
		q.msg = append(append(q.msg, byte(len(label))), label...)
	}
	q.digits = q.msg[at : at+len(first)-1]
	q.msg = append(q.msg, 0, 0, 1, 0, 1)
	return q
}

// next gives the next query, which is valid until the one after it.
func (q *query) next() []byte {
	q.number++
	binary.BigEndian.PutUint16(q.msg, uint16(rand.Uint32()))
	n := q.number
	switch q.names {
	case local:
		n = rand.Uint64N(localNames)
	case kept:
		n = rand.Uint64N(keptNames)
	}
	for i := len(q.digits) - 1; i >= 0; i-- {
		q.digits[i] = '0' + byte(n%10)
		n /= 10
	}
	return q.msg
}

// answer is the upstream: it answers every A query at once, and says that this
// holds for an hour.
func answer(args []string) error {
	fs := flag.NewFlagSet("upstream", flag.ContinueOnError)
	at := fs.String("listen", "", "address and port")
	if err := fs.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*at)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	b := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(fd, b[:2048], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("recvfrom", err)
		}
		if out := positive(b[:max(n, 0)]); out != nil {
			_ = unix.Sendto(fd, out, 0, from)
		}
	}
}

// positive turns a query into its answer, which takes the place of what follows
// the question.
func positive(b []byte) []byte {
	at := 12
	for at < len(b) && b[at] != 0 {
		at += int(b[at]) + 1
	}
	if at+5 > len(b) {
		return nil
	}
	edns := b[11] == 1
	b[2], b[3] = 0x81, 0x80
	copy(b[6:], []byte{0, 1, 0, 0, 0, 0})
	b = append(b[:at+5], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 80)
	if edns {
		b[11] = 1
		b = append(b, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0)
	}
	return b
}
