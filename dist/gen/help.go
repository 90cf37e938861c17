package main

import (
	"fmt"
	"regexp"
	"strings"
)

// help is the help of a command, taken apart.
type help struct {
	prose    string
	usage    []string
	aliases  []string
	commands []entry
	flags    []entry
	global   []entry
	examples []string
}

// entry is a line with a term and what it means.
type entry struct{ term, text string }

// parseHelp takes the help of a command apart: prose, then sections, whose
// headings begin a line and whose lines do not.
func parseHelp(text string) (help, error) {
	var h help
	heading := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case isHeading(line):
			heading = line
		case heading == "":
			h.prose += line + "\n"
		case line == "" || strings.HasPrefix(line, `Use "`):
		case !strings.HasPrefix(line, "  "):
			return help{}, fmt.Errorf("line %q is in no section", line)
		default:
			if err := h.add(heading, line); err != nil {
				return help{}, err
			}
		}
	}
	h.prose = strings.TrimSpace(h.prose)
	return h, nil
}

func isHeading(line string) bool {
	switch line {
	case "Usage:", "Aliases:", "Examples:", "Available Commands:", "Flags:", "Global Flags:":
		return true
	}
	return false
}

// add takes a line of a section.
func (h *help) add(heading, line string) error {
	var err error
	switch heading {
	case "Usage:":
		h.usage = append(h.usage, strings.TrimSpace(line))
	case "Aliases:":
		h.aliases = append(h.aliases, strings.TrimSpace(line))
	case "Examples:":
		h.examples = append(h.examples, strings.TrimPrefix(line, "  "))
	case "Available Commands:":
		h.commands, err = addEntry(h.commands, line)
	case "Flags:":
		h.flags, err = addEntry(h.flags, line)
	case "Global Flags:":
		h.global, err = addEntry(h.global, line)
	}
	return err
}

// addEntry takes a line with a term, two blanks or more, and its meaning.
func addEntry(to []entry, line string) ([]entry, error) {
	m := regexp.MustCompile(`^(\S.*?) {2,}(\S.*)$`).FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return nil, fmt.Errorf("line %q is no term with a meaning", line)
	}
	return append(to, entry{m[1], m[2]}), nil
}
