package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// written writes a configuration file.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "towpathd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigurationFile: it says what flags say, and flags win.
func TestConfigurationFile(t *testing.T) {
	path := written(t, `# what this host has of its own
run-dir: /run/other
log-format: json
dns-ttl: 30s
protect-tables: "off"
group: 27
pool:
  - 10.128.0.0/12,size=24
  - fd00:7::/48
dns-upstream: 192.0.2.53
`)
	var out, errs bytes.Buffer
	c, code := parse([]string{"--config", path, "--log-format", "text", "--dns-upstream", "192.0.2.54"}, &out, &errs)
	if c == nil {
		t.Fatalf("code %d: %s", code, errs.String())
	}
	if c.runDir != "/run/other" || c.ttl != 30*time.Second || c.protect || c.group != "27" || len(c.pools) != 2 || c.pools[1].Size != 64 {
		t.Errorf("the file was not read: %+v", c)
	}
	if c.logFormat != "text" || len(c.upstreams) != 1 || c.upstreams[0].String() != "192.0.2.54" {
		t.Errorf("the flags do not win: %s, %v", c.logFormat, c.upstreams)
	}
	if c, _ := parse([]string{"--config", written(t, "# nothing\n")}, &out, &errs); c == nil || c.runDir != "/run/towpath" {
		t.Errorf("a file without settings: %+v", c)
	}
}

// TestConfigurationFileRefused: the message names the file, and the line.
func TestConfigurationFileRefused(t *testing.T) {
	for text, want := range map[string]string{
		"run-dri: /run/x\n":                   `line 1: setting "run-dri" is not known; did you mean run-dir?`,
		"log-format: json\ncleanup: true\n":   `line 2: setting "cleanup" is not known; `,
		"dns-ttl: soon\n":                     "line 1: dns-ttl: ",
		"log-format: [json, text]\n":          "line 1: log-format: it takes one value, not a list",
		"pool: {base: 10.0.0.0/8}\n":          "line 1: pool: its value is neither a word nor a list of words",
		"- log-format\n":                      "line 1: it is no list of KEY: VALUE",
		"log-format: json\n  run-dir: /x\n":   "towpathd.yaml: ",
		"pool: 10.0.0.0/8,size=2\n":           "subnets of /2 do not fit",
		"log-format: json\nlog-format: xml\n": "line 2: log-format is there twice; leave one out",
	} {
		var out, errs bytes.Buffer
		path := written(t, text)
		c, code := parse([]string{"--config", path}, &out, &errs)
		if c != nil || code != 1 || !strings.Contains(errs.String(), want) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: code %d, %q, want %q", text, code, errs.String(), want)
		}
	}
	var out, errs bytes.Buffer
	if c, code := parse([]string{"--config", "/nonexistent/towpathd.yaml"}, &out, &errs); c != nil || code != 1 || !strings.Contains(errs.String(), "/nonexistent/towpathd.yaml: no such file") {
		t.Errorf("no file: code %d, %q", code, errs.String())
	}
}
