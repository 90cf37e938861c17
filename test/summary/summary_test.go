package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// sample is a module with every fate a package can have.
func sample() map[string]string {
	return map[string]string{
		"go.mod": "module example.org/sample\n\ngo 1.26.0\n",
		"ok/ok_test.go": `package ok
import "testing"
func TestFine(t *testing.T) { t.Log("nobody needs to read this") }
func TestParts(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) { t.Skip("needs root:\nmounting is refused") })
}
func TestAlsoSkipped(t *testing.T) { t.Log("on the way"); t.Skip("needs root: mounting is refused") }
`,
		"bad/bad_test.go": `package bad
import "testing"
func TestFine(t *testing.T) { t.Log("nobody needs to read this") }
func TestParts(t *testing.T) {
	t.Run("one", func(t *testing.T) { t.Error("want 1, got 2") })
	t.Run("two", func(t *testing.T) {})
}
`,
		"panics/panics_test.go": `package panics
import "testing"
func TestFirst(t *testing.T) {}
func TestPanics(t *testing.T) { panic("out of luck") }
func TestNever(t *testing.T) {}
`,
		"broken/broken_test.go": `package broken
import "testing"
func TestType(t *testing.T) { var n int = "a word" }
`,
		"exits/exits_test.go": `package exits
import ("os"; "testing")
func TestMain(m *testing.M) { os.Exit(3) }
func TestNever(t *testing.T) {}
`,
		"empty/empty.go": "package empty\n",
	}
}

func writeSample(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sample() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
}

func TestRunTellsEveryFate(t *testing.T) {
	writeSample(t)
	var out, errOut strings.Builder
	code, err := run([]string{"-count=1", "./..."}, &out, &errOut)
	if code != 1 || err != nil {
		t.Errorf("run = %d, %v; want 1 and no error\n%s", code, err, errOut.String())
	}
	text := regexp.MustCompile(` +\d+\.\d\ds`).ReplaceAllString(out.String(), "")
	for _, want := range []string{
		"ok  example.org/sample/ok\n",
		"FAIL  example.org/sample/bad\n",
		"FAIL  example.org/sample/panics\n",
		"FAIL  example.org/sample/broken  [build failed]\n",
		"FAIL  example.org/sample/exits\n",
		"-  example.org/sample/empty  [no test files]\n",
		"want 1, got 2",
		"panic: out of luck",
		"cannot use \"a word\"",
		"\nskipped:\n  needs root: mounting is refused\n    example.org/sample/ok.TestParts/two\n" +
			"    example.org/sample/ok.TestAlsoSkipped\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %q", want)
		}
	}
	if strings.Contains(text, "nobody needs to read this") {
		t.Error("the output of a test that passed was printed")
	}
	// Passed: Fine, Parts/one of ok; Fine, Parts/two of bad; First of panics.
	// Failed: one each of bad, panics, broken and exits.
	if !strings.HasSuffix(text, "\n5 passed, 4 failed, 2 skipped\n") {
		t.Errorf("wrong closing line")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestRunExitCodes(t *testing.T) {
	writeSample(t)
	tests := []struct {
		name, arg string
		code      int
		closing   string
		complains bool
	}{
		{"all pass", "./ok", 0, "\n2 passed, 0 failed, 2 skipped\n", false},
		{"nothing to test", "./empty", 0, "\n0 passed, 0 failed, 0 skipped\n", false},
		{"a failure", "./bad", 1, "\n2 passed, 1 failed, 0 skipped\n", false},
		{"no event of the failure", "-p=many", 1, "\n0 passed, 0 failed, 0 skipped\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			code, err := run([]string{"-count=1", tt.arg}, &out, io.Discard)
			if code != tt.code || (err != nil) != tt.complains {
				t.Errorf("run = %d, %v; want code %d, an error: %v", code, err, tt.code, tt.complains)
			}
			if !strings.HasSuffix(out.String(), tt.closing) {
				t.Errorf("output ends wrong, want %q:\n%s", tt.closing, out.String())
			}
		})
	}
}

func TestSummarizeCutShort(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"half a word\n"}
plain text
`
	var out strings.Builder
	failed, err := summarize(strings.NewReader(events), &out)
	if failed != 1 || err != nil {
		t.Errorf("summarize = %d, %v; want 1 failure and no error", failed, err)
	}
	for _, want := range []string{"plain text\n", "half a word\n", "--- did not finish: TestA\n", "\n0 passed, 1 failed, 0 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing %q in:\n%s", want, out.String())
		}
	}
}

func TestSummarizeReadError(t *testing.T) {
	broken := errors.New("broken pipe")
	if _, err := summarize(iotest.ErrReader(broken), io.Discard); !errors.Is(err, broken) {
		t.Errorf("error = %v, want %v", err, broken)
	}
}
