package main

import (
	"fmt"
	"slices"
	"strings"
)

// manual writes the pages.
type manual struct {
	help    func(program string, args ...string) (string, error)
	version string
	pages   map[string]string
}

// client writes the page of a command of towpath, and those of the commands below it.
func (m manual) client(path []string, short string) error {
	text, err := m.help("towpath", append(slices.Clone(path), "--help")...)
	if err != nil {
		return err
	}
	h, err := parseHelp(text)
	if err == nil && len(h.usage) == 0 {
		err = fmt.Errorf("it has no usage")
	}
	if err != nil {
		return fmt.Errorf("read help of towpath %s: %w", strings.Join(path, " "), err)
	}
	h.commands = slices.DeleteFunc(h.commands, func(c entry) bool { return c.term == "help" })
	see := []string{}
	if len(path) > 0 {
		see = append(see, reference(path[:len(path)-1]))
	}
	for _, c := range h.commands {
		below := append(slices.Clone(path), c.term)
		see = append(see, reference(below))
		if err := m.client(below, c.text); err != nil {
			return err
		}
	}
	name := strings.Join(append([]string{"towpath"}, path...), "-")
	m.pages["man/man1/"+name+".1"] = page{
		name: name, section: 1, short: short, version: m.version,
		help: h, see: append(see, "towpathd(8)"),
	}.String()
	return nil
}

// reference is how other pages name that of a command.
func reference(path []string) string {
	return strings.Join(append([]string{"towpath"}, path...), "-") + "(1)"
}

// daemon writes the page of towpathd. Its help is prose and flags.
func (m manual) daemon() error {
	text, err := m.help("towpathd", "--help")
	if err != nil {
		return err
	}
	h, err := parseHelp(text)
	if err == nil && len(h.flags) == 0 {
		err = fmt.Errorf("it has no flags")
	}
	if err != nil {
		return fmt.Errorf("read help of towpathd: %w", err)
	}
	h.usage = []string{"towpathd [flags]"}
	h.prose = strings.TrimPrefix(h.prose, "towpathd: ") + "\n\nThe daemon keeps the kernel as its store says. The kernel alone carries packets: while no daemon" +
		" runs, all connections, established and new, go on."
	m.pages["man/man8/towpathd.8"] = page{
		name: "towpathd", section: 8, short: "the daemon of Towpath", version: m.version, help: h,
		more: []section{
			{"SIGNALS", []entry{{"SIGTERM, SIGINT", "End when the requests under way are answered. The network stays up; --cleanup takes it down."}}},
			{"FILES", []entry{
				{"/run/towpath/towpath.sock", "The socket of the API. Who may write to it may do with the network what root may."},
				{"/run/towpath/netns/NAME", "The network namespace of a sandbox, mounted, for any program that takes one."},
				{"/var/lib/towpath/towpath.db", "The store."},
			}},
			{"ENVIRONMENT", []entry{{"NOTIFY_SOCKET, WATCHDOG_USEC", "As in sd_notify(3): the daemon says when it is ready, when it stops, and that it is alive."}}},
		},
		see: []string{"towpath(1)", "systemd.service(5)"},
	}.String()
	return nil
}

// page is one page of the manual.
type page struct {
	name    string
	section int
	short   string
	version string
	help    help
	more    []section
	see     []string
}

// section is a heading with entries.
type section struct {
	heading string
	entries []entry
}

// String is the page as groff and mandoc read it (man(7)).
func (p page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %d \"\" \"Towpath %s\" \"Towpath Manual\"\n.nh\n.ad l\n", strings.ToUpper(p.name), p.section, p.version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.nf\n", escape(p.name), escape(p.short))
	for _, line := range p.help.usage {
		fmt.Fprintf(&b, "%s\n", escape(line))
	}
	b.WriteString(".fi\n")
	if !strings.EqualFold(p.help.prose, p.short) {
		b.WriteString(".SH DESCRIPTION\n" + prose(p.help.prose))
	}
	for _, names := range p.help.aliases {
		fmt.Fprintf(&b, ".SH ALIASES\n%s\n", escape(names))
	}
	sections := append([]section{
		{"COMMANDS", p.help.commands}, {"OPTIONS", p.help.flags}, {"GLOBAL OPTIONS", p.help.global},
	}, p.more...)
	for _, s := range sections {
		b.WriteString(s.String())
	}
	if len(p.help.examples) > 0 {
		b.WriteString(".SH EXAMPLES\n" + literal(p.help.examples))
	}
	fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", escape(strings.Join(p.see, ", ")))
	return b.String()
}

// String is nothing without entries.
func (s section) String() string {
	if len(s.entries) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".SH %s\n", s.heading)
	for _, e := range s.entries {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", escape(e.term), escape(e.text))
	}
	return b.String()
}

// prose is paragraphs; one whose lines are indented stays as it is.
func prose(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(text, "\n\n") {
		lines := strings.Split(strings.Trim(paragraph, "\n"), "\n")
		switch {
		case strings.HasPrefix(lines[0], "  "):
			b.WriteString(literal(lines))
			continue
		case i > 0:
			b.WriteString(".PP\n")
		}
		for _, line := range lines {
			b.WriteString(escape(line) + "\n")
		}
	}
	return b.String()
}

// literal is lines that stay as they are.
func literal(lines []string) string {
	var b strings.Builder
	b.WriteString(".PP\n.RS 4\n.nf\n")
	for _, line := range lines {
		b.WriteString(escape(line) + "\n")
	}
	b.WriteString(".fi\n.RE\n")
	return b.String()
}

// escape keeps roff from taking text for anything else: a backslash, a dot or
// quote that begins a line; and a dash and quotes stay those of ASCII, to be
// copied into a shell.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", "\\(ga", `^`, `\(ha`, `~`, `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}
