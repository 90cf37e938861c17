package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

// question is a row of the table of cases in docs/names.md.
type question struct {
	who, name, kind string
	answers         []string // sorted; none if it is told nothing
	exists          bool     // false: NXDOMAIN
}

func (q question) String() string { return q.who + " asks for " + q.name + " " + q.kind }

// casesInDocs reads the commands and the table.
func casesInDocs(t testing.TB) (commands [][]string, rows []question) {
	t.Helper()
	text, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	_, cases, found := strings.Cut(string(text), "\n## Cases\n")
	if !found {
		t.Fatal("docs/names.md has no cases")
	}
	for line := range strings.Lines(cases) {
		if args, ok := strings.CutPrefix(line, "    towpath "); ok {
			commands = append(commands, strings.Fields(args))
		}
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.Contains(line, "---") || strings.Contains(line, "asks for") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		q := question{who: cells[1], name: cells[2], kind: cells[3], exists: cells[4] != "NXDOMAIN"}
		switch {
		case q.kind == "SRV" && q.exists:
			q.answers = []string{cells[4]}
		case q.exists && cells[4] != "nothing":
			q.answers = strings.Fields(cells[4])
		}
		slices.Sort(q.answers)
		rows = append(rows, q)
	}
	return commands, rows
}

// namesWorld is a host whose resolver asks a server outside.
func namesWorld(t *testing.T) (*world, *nameServer) {
	t.Helper()
	w := newWorld(t)
	w.flags = []string{"--dns-upstream", outside4().String()}
	upstream := serveNames(w, w.outside, outside4())
	w.start()
	return w, upstream
}

// TestNamesTable makes what docs/names.md says and asks each question with every
// client that is here.
func TestNamesTable(t *testing.T) {
	w, _ := namesWorld(t)
	commands, rows := casesInDocs(t)
	if len(commands) < 10 || len(rows) < 40 {
		t.Fatalf("docs/names.md has %d commands and %d cases", len(commands), len(rows))
	}
	for _, args := range commands {
		w.must(args...)
	}
	w.clean()
	for name, c := range clients() {
		t.Run(name, func(t *testing.T) {
			if c.needs != "" {
				testnet.Require(t, c.needs)
			}
			if c.prepare != nil {
				c.prepare(t)
			}
			for _, q := range rows {
				if c.addressesOnly && q.kind != "A" && q.kind != "AAAA" {
					continue
				}
				c.check(t, w, q)
			}
		})
	}
}

// asker is a program that asks for names as its library does.
type asker struct {
	needs         string
	prepare       func(t *testing.T)
	addressesOnly bool
	argv          func(q question) []string
	// answers reads what it prints.
	answers func(q question, out string) []string
	// hosts says that it looks into /etc/hosts first, where the sandbox has all of
	// its addresses at its names.
	hosts bool
	// status finds the code in what it prints; nil where it tells none.
	status func(out string) string
}

// clients are those that the table is asked with.
func clients() map[string]*asker {
	dig := func(flags ...string) *asker {
		return &asker{
			needs: "dig-binary",
			argv: func(q question) []string {
				return append([]string{"dig", "+tries=1", "+timeout=5", q.name + ".", q.kind}, flags...)
			},
			answers: digAnswers, status: digStatus,
		}
	}
	lines := func(_ question, out string) []string { return strings.Fields(out) }
	musl := &asker{needs: "musl-gcc-binary", addressesOnly: true, hosts: true, answers: lines}
	musl.prepare = func(t *testing.T) {
		program := buildMusl(t)
		musl.argv = func(q question) []string { return []string{program, family(q), q.name} }
	}
	self, _ := os.Executable()
	return map[string]*asker{
		"dig": dig(), "dig over TCP": dig("+tcp"), "dig without EDNS": dig("+noedns"),
		"getent": {
			needs: "getent-binary", addressesOnly: true, answers: getentAnswers,
			argv: func(q question) []string { return []string{"getent", "-s", "dns", "ahostsv" + family(q), q.name} },
		},
		"go":   {addressesOnly: true, hosts: true, answers: lines, argv: func(q question) []string { return []string{self, lookupArg, family(q), q.name} }},
		"musl": musl,
		"busybox": {
			needs: "busybox-binary", addressesOnly: true, answers: busyboxAnswers,
			argv: func(q question) []string {
				return []string{"busybox", "nslookup", "-type=" + strings.ToLower(q.kind), q.name + "."}
			},
		},
	}
}

func family(q question) string {
	if q.kind == "A" {
		return "4"
	}
	return "6"
}

// check asks one question.
func (c *asker) check(t *testing.T, w *world, q question) {
	t.Helper()
	r := w.towpath(append([]string{"exec", q.who, "--"}, c.argv(q)...)...)
	if r.code >= 125 {
		t.Fatalf("%s: exit %d: %s", q, r.code, r.stderr)
	}
	got := slices.Compact(slices.Sorted(slices.Values(c.answers(q, r.stdout))))
	inHosts := c.hosts && (q.name == q.who || strings.HasPrefix(q.name, q.who+".example.") || q.name == "localhost")
	switch {
	case inHosts: // all of its addresses
		for _, a := range q.answers {
			if !slices.Contains(got, a) {
				t.Errorf("%s: got %q, want %q among it", q, got, q.answers)
			}
		}
	case !slices.Equal(got, q.answers):
		t.Errorf("%s: got %q, want %q\n%s%s", q, got, q.answers, r.stdout, r.stderr)
	}
	if c.status != nil {
		want := "NOERROR"
		if !q.exists {
			want = "NXDOMAIN"
		}
		if status := c.status(r.stdout); status != want {
			t.Errorf("%s: status %s, want %s", q, status, want)
		}
	}
}

// digAnswers are the data of the answer section.
func digAnswers(q question, out string) []string {
	_, section, _ := strings.Cut(out, ";; ANSWER SECTION:\n")
	section, _, _ = strings.Cut(section, "\n\n")
	var got []string
	for line := range strings.Lines(section) {
		f := strings.Fields(line)
		if len(f) < 5 || f[3] != q.kind {
			got = append(got, line)
			continue
		}
		got = append(got, strings.Join(f[4:], " "))
	}
	return got
}

func digStatus(out string) string {
	_, rest, _ := strings.Cut(out, "status: ")
	status, _, _ := strings.Cut(rest, ",")
	return status
}

// getentAnswers are the first words; getent maps IPv4 where there is no IPv6.
func getentAnswers(_ question, out string) []string {
	var got []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "::ffff:") {
			got = append(got, f[0])
		}
	}
	return got
}

// busyboxAnswers are the addresses behind the server's own.
func busyboxAnswers(_ question, out string) []string {
	var got []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "Address:" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				got = append(got, a.String())
			}
		}
	}
	return got
}

// lookupArg as the first argument makes the test program a client in Go.
const lookupArg = "towpath-lookup"

// lookup prints the addresses of a name.
func lookup(args []string) int {
	addrs, err := (&net.Resolver{PreferGo: true}).LookupNetIP(context.Background(), "ip"+args[0], args[1])
	for _, a := range addrs {
		fmt.Println(a.Unmap())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// muslClient asks as a container with musl does.
const muslClient = `
#include <stdio.h>
#include <string.h>
#include <netdb.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
	struct addrinfo hints = {0}, *list, *a;
	hints.ai_family = argv[1][0] == '4' ? AF_INET : AF_INET6;
	hints.ai_socktype = SOCK_STREAM;
	int err = getaddrinfo(argv[2], 0, &hints, &list);
	if (err) { fprintf(stderr, "%s\n", gai_strerror(err)); return 1; }
	for (a = list; a; a = a->ai_next) {
		char text[64];
		void *p = a->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
		                                  : (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		puts(inet_ntop(a->ai_family, p, text, sizeof text));
	}
	return 0;
}
`

func buildMusl(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "lookup")
	cmd := exec.Command("musl-gcc", "-static", "-o", program, "-x", "c", "-")
	cmd.Stdin = bytes.NewReader([]byte(muslClient))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build client with musl: %v\n%s", err, out)
	}
	return program
}
