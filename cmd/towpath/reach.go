package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/term"
)

func (c *cli) reach() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use: "reach", Short: "Say who can reach whom, from the rules in the kernel",
		Long: "Say who can reach whom: one packet of every class that a rule or a socket tells from others\n" +
			"is followed through the state of the kernel, there and back. Nothing is sent.\n\n" +
			"Names are those of towpath map: sandboxes, containers, host, outside.",
		Example: "  towpath reach\n  towpath reach --to web:80\n  towpath reach --from web --to db",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, port, err := parseReachTo(to)
			if err != nil {
				return err
			}
			t, err := c.client().Reach(cmd.Context(), from, name, port)
			if err != nil {
				return err
			}
			return c.printReach(t)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "only from this sandbox, container, host or outside")
	cmd.Flags().StringVar(&to, "to", "", "only to this one, and of its ports only the one behind a colon")
	return c.output(c.completeArgs(cmd))
}

// parseReachTo reads NAME[:PORT].
func parseReachTo(s string) (name string, port uint16, err error) {
	name, text, found := strings.Cut(s, ":")
	if !found || strings.HasPrefix(text, "[") { // net:[4026532281]
		return s, 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, api.Errorf(api.Invalid, "--to: %q is not a port, 1 to 65535", text).WithFix("write it as NAME:PORT")
	}
	return name, uint16(n), nil
}

// printReach prints a table.
func (c *cli) printReach(t api.Reach) error {
	if c.json {
		return c.printJSON(t)
	}
	var rows [][]string
	for _, r := range t.Rows {
		addr := r.Addr.String()
		if r.Port != 0 {
			addr = fmt.Sprintf("%s:%d", addr, r.Port)
			if r.Addr.Is6() {
				addr = fmt.Sprintf("[%s]:%d", r.Addr, r.Port)
			}
		}
		verdict := string(r.Verdict)
		if (r.Verdict == api.Delivered || r.Verdict == api.Refused) && !r.Reaches {
			verdict = "no answer"
		}
		rows = append(rows, []string{r.From, r.To, addr, strings.Join(r.Packets, "; "), verdict, decides(r)})
	}
	if err := term.Table(c.out, []string{"FROM", "TO", "ADDRESS", "PACKETS", "VERDICT", "DECIDED BY"}, rows); err != nil {
		return err
	}
	for _, n := range t.Notes {
		c.warn("%s", n)
	}
	return nil
}

// decides is the rule that decided, or what did where it was none.
func decides(r api.ReachRow) string {
	if r.Rule == nil {
		return cmp.Or(r.Reason, "-")
	}
	place := fmt.Sprintf("%s %s %s", r.Rule.Family, r.Rule.Table, r.Rule.Chain)
	if r.Rule.Handle != 0 {
		place += fmt.Sprintf(" handle %d", r.Rule.Handle)
	}
	if r.Rule.Comment != "" {
		place += fmt.Sprintf(" %q", r.Rule.Comment)
	}
	if r.Rule.Author != "" {
		place += " (" + r.Rule.Author + ")"
	}
	return place
}
