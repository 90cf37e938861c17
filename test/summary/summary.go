package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json`; `go doc cmd/test2json` describes the fields. Lines of the
// compiler come as build-output, with an ImportPath and no Package.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// line is one piece of output with the test that wrote it; empty: the package as a whole.
type line struct{ test, text string }

// pkg is what is known of one package until its last event.
type pkg struct {
	lines   []line
	started []string          // tests in the order they started
	result  map[string]string // test -> pass, fail or skip; absent while it runs
}

// report collects the outcome of all packages.
type report struct {
	out                     io.Writer
	running                 map[string]*pkg
	skips                   map[string][]string // reason -> tests
	passed, failed, skipped int
}

// summarize reads the events of `go test -json` from in until its end, writes the summary to out,
// and returns how many tests (or packages that could not be tested) failed. The error is that of
// reading in.
func summarize(in io.Reader, out io.Writer) (failed int, err error) {
	r := &report{out: out, running: map[string]*pkg{}, skips: map[string][]string{}}
	err = r.read(bufio.NewReader(in))
	for _, name := range slices.Sorted(maps.Keys(r.running)) {
		r.finish(event{Package: name, Action: "fail"})
	}
	r.printSkips()
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.failed, err
}

func (r *report) read(in *bufio.Reader) error {
	for {
		raw, err := in.ReadBytes('\n')
		if len(raw) > 0 {
			r.take(raw)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// take handles one line; what is not an event is passed on as it is.
func (r *report) take(raw []byte) {
	var e event
	if !bytes.HasPrefix(raw, []byte("{")) || json.Unmarshal(raw, &e) != nil {
		fmt.Fprintf(r.out, "%s", raw)
		return
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Package == "":
	case e.Test == "" && isResult(e.Action):
		r.finish(e)
	default:
		r.packageOf(e.Package).note(e)
	}
}

func isResult(action string) bool {
	return action == "pass" || action == "fail" || action == "skip"
}

func (r *report) packageOf(name string) *pkg {
	p := r.running[name]
	if p == nil {
		p = &pkg{result: map[string]string{}}
		r.running[name] = p
	}
	return p
}

func (p *pkg) note(e event) {
	switch {
	case e.Action == "run":
		p.started = append(p.started, e.Test)
	case e.Action == "output":
		p.lines = append(p.lines, line{e.Test, e.Output})
	case isResult(e.Action):
		p.result[e.Test] = e.Action
	}
}

// finish ends a package: it counts its tests, prints its line, and the output of what failed.
func (r *report) finish(e event) {
	p := r.packageOf(e.Package)
	delete(r.running, e.Package)
	p.failUnfinished(e.Action)
	failed := r.count(e.Package, p)
	if e.Action == "fail" && failed == 0 {
		r.failed++ // it did not compile, or died outside of any test
	}
	if e.Action == "fail" {
		p.printFailures(r.out)
	}
	fmt.Fprintf(r.out, "%-5s %7.2fs  %s%s\n", p.word(e.Action), e.Elapsed, e.Package, p.remark())
}

// failUnfinished marks the tests that have no result when their package ends: a panic or the
// timeout of go test took them along.
func (p *pkg) failUnfinished(action string) {
	if action != "fail" {
		return
	}
	for _, name := range p.started {
		if p.result[name] == "" {
			p.result[name] = "fail"
			p.lines = append(p.lines, line{name, "--- did not finish: " + name + "\n"})
		}
	}
}

func (p *pkg) word(action string) string {
	switch {
	case action == "fail":
		return "FAIL"
	case len(p.started) == 0:
		return "-"
	}
	return "ok"
}

// remark is the bracket of go test's own line, as in [no test files].
func (p *pkg) remark() string {
	for _, l := range p.lines {
		if at := strings.Index(l.text, "["); l.test == "" && at >= 0 && strings.HasSuffix(l.text, "]\n") {
			return "  " + strings.TrimSpace(l.text[at:])
		}
	}
	return ""
}

// count adds the tests of p to the totals and returns how many failed. Of a test with subtests
// only the subtests count, unless it has a fate of its own.
func (r *report) count(name string, p *pkg) (failed int) {
	for _, test := range p.started {
		result := p.result[test]
		if p.hasSubtest(test, "") && (result == "pass" || p.hasSubtest(test, result)) {
			continue
		}
		switch result {
		case "pass":
			r.passed++
		case "fail":
			failed++
		case "skip":
			r.skipped++
			why := p.skipReason(test)
			r.skips[why] = append(r.skips[why], name+"."+test)
		}
	}
	r.failed += failed
	return failed
}

// hasSubtest tells whether test has a subtest with that result; empty: with any.
func (p *pkg) hasSubtest(test, result string) bool {
	return slices.ContainsFunc(p.started, func(other string) bool {
		return strings.HasPrefix(other, test+"/") && (result == "" || p.result[other] == result)
	})
}

// printFailures writes the whole output of the failed tests and of the package itself, in the
// order it was written. Go test's closing line of a package is left out: ours says the same.
func (p *pkg) printFailures(out io.Writer) {
	for _, l := range p.lines {
		closing := l.test == "" && strings.HasPrefix(l.text, "FAIL")
		if !closing && (l.test == "" || p.result[l.test] == "fail") {
			fmt.Fprint(out, l.text)
		}
	}
}

// logged matches the place that package testing puts before what a test logs.
var logged = regexp.MustCompile(`^\s+[^\s:]+\.go:\d+: `)

// skipReason is what the test logged last: t.Skip logs its reason and ends the test. Further lines
// of the same message are indented without a place.
func (p *pkg) skipReason(test string) string {
	var reason []string
	for _, l := range p.lines {
		text := strings.TrimSpace(l.text)
		switch {
		case l.test != test || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- "):
		case logged.MatchString(l.text):
			reason = []string{l.text[len(logged.FindString(l.text)):]}
		default:
			reason = append(reason, text)
		}
	}
	joined := strings.Join(strings.Fields(strings.Join(reason, " ")), " ")
	if joined == "" {
		return "no reason given"
	}
	return joined
}

func (r *report) printSkips() {
	if len(r.skips) == 0 {
		return
	}
	fmt.Fprintf(r.out, "\nskipped:\n")
	for _, reason := range slices.Sorted(maps.Keys(r.skips)) {
		fmt.Fprintf(r.out, "  %s\n", reason)
		for _, test := range r.skips[reason] {
			fmt.Fprintf(r.out, "    %s\n", test)
		}
	}
}
