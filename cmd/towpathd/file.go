package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/towpath/towpath/internal/term"
)

// defaultFile is read where it exists; --config names another.
const defaultFile = "/etc/towpath/towpathd.yaml"

// readFile sets the flags that the command line left alone as a file of YAML
// says: a mapping of their names to their values, a sequence for a repeatable
// one. A default file that is not there says nothing.
func readFile(flags *pflag.FlagSet, path string, given bool) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 { // comments only
		return nil
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: line %d: it is no list of KEY: VALUE; write it as log-format: json", path, top.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		if key := top.Content[i]; seen[key.Value] {
			return fmt.Errorf("%s: line %d: %s is there twice; leave one out", path, key.Line, key.Value)
		}
		seen[top.Content[i].Value] = true
		if err := setting(flags, top.Content[i], top.Content[i+1]); err != nil {
			return fmt.Errorf("%s: line %d: %w", path, top.Content[i].Line, err)
		}
	}
	return nil
}

// setting is one line of the file.
func setting(flags *pflag.FlagSet, key, value *yaml.Node) error {
	flag := flags.Lookup(key.Value)
	if flag == nil || !settable(flag.Name) {
		var known []string
		flags.VisitAll(func(f *pflag.Flag) {
			if settable(f.Name) {
				known = append(known, f.Name)
			}
		})
		if near := term.Near(key.Value, known); len(near) > 0 {
			return fmt.Errorf("setting %q is not known; did you mean %s?", key.Value, strings.Join(near, " or "))
		}
		return fmt.Errorf("setting %q is not known; known: %s", key.Value, strings.Join(known, ", "))
	}
	if flag.Changed {
		return nil
	}
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		values = value.Content
	}
	if _, repeatable := flag.Value.(pflag.SliceValue); !repeatable && value.Kind == yaml.SequenceNode {
		return fmt.Errorf("%s: it takes one value, not a list", key.Value)
	}
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return fmt.Errorf("%s: its value is neither a word nor a list of words", key.Value)
		}
		if err := flag.Value.Set(v.Value); err != nil {
			return fmt.Errorf("%s: %w", key.Value, err)
		}
	}
	return nil
}

// settable says which flags are settings, and not something to do and end.
func settable(name string) bool {
	return name != "cleanup" && name != "check" && name != "version" && name != "config"
}
