package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// program answers as a small command line would.
func program(name string, args ...string) (string, error) {
	switch line := strings.Join(append([]string{name}, args...), " "); line {
	case "towpath --help":
		return `Networks

Usage:
  towpath [command]

Available Commands:
  help        Print help
  run         Run a command

Use "towpath [command] --help" for more information about a command.
`, nil
	case "towpath run --help":
		return `Run a command. It's 'quoted', a \ and:

  .profile   stays   as it is

.dots do not hurt.

Usage:
  towpath run [flags] -- CMD

Aliases:
  run, start

Examples:
  towpath run -- sh -c 'echo ~'

Flags:
  -d, --detach           in the background
      --network string   a network,  two blanks and all

Global Flags:
      --json   print JSON
`, nil
	case "towpathd --help":
		return "towpathd: the daemon.\n\nFlags:\n      --group string   who may\n", nil
	default:
		return "", fmt.Errorf("no help for %q", line)
	}
}

func TestManual(t *testing.T) {
	m := manual{help: program, version: "v1", pages: map[string]string{}}
	if err := m.client(nil, "networks"); err != nil {
		t.Fatal(err)
	}
	if err := m.daemon(); err != nil {
		t.Fatal(err)
	}
	want := []string{"man/man1/towpath-run.1", "man/man1/towpath.1", "man/man8/towpathd.8"}
	if got := slices.Sorted(maps.Keys(m.pages)); !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	const run = `.TH TOWPATH-RUN 1 "" "Towpath v1" "Towpath Manual"
.nh
.ad l
.SH NAME
towpath\-run \- Run a command
.SH SYNOPSIS
.nf
towpath run [flags] \-\- CMD
.fi
.SH DESCRIPTION
Run a command. It\(aqs \(aqquoted\(aq, a \e and:
.PP
.RS 4
.nf
  .profile   stays   as it is
.fi
.RE
.PP
\&.dots do not hurt.
.SH ALIASES
run, start
.SH OPTIONS
.TP
\fB\-d, \-\-detach\fR
in the background
.TP
\fB\-\-network string\fR
a network,  two blanks and all
.SH GLOBAL OPTIONS
.TP
\fB\-\-json\fR
print JSON
.SH EXAMPLES
.PP
.RS 4
.nf
towpath run \-\- sh \-c \(aqecho \(ti\(aq
.fi
.RE
.SH SEE ALSO
towpath(1), towpathd(8)
`
	if got := m.pages[want[0]]; got != run {
		t.Errorf("got\n%s\nwant\n%s", got, run)
	}
	for page, has := range map[string][]string{
		want[1]: {".SH NAME\ntowpath \\- networks\n", "\\fBrun\\fR\nRun a command\n", "towpath\\-run(1), towpathd(8)"},
		want[2]: {"\\fB\\-\\-group string\\fR\nwho may\n", ".SH SIGNALS\n", "/run/towpath/towpath.sock"},
	} {
		for _, text := range has {
			if !strings.Contains(m.pages[page], text) {
				t.Errorf("%s lacks %q:\n%s", page, text, m.pages[page])
			}
		}
	}
}

// TestUnknownHelp: help in another form is an error and not half a page.
func TestUnknownHelp(t *testing.T) {
	for _, text := range []string{
		"Run\n\nFlags:\n  --network\n",
		"Run\n\nUsage:\n  run\nSee also\n",
		"Run\n",
	} {
		m := manual{help: func(string, ...string) (string, error) { return text, nil }, pages: map[string]string{}}
		if err := m.client([]string{"run"}, "run"); err == nil {
			t.Errorf("no error for\n%s", text)
		}
		if err := m.daemon(); err == nil {
			t.Errorf("no error for the daemon for\n%s", text)
		}
	}
}
