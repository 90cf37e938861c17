package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

func (c *cli) doctor() *cobra.Command {
	var fix []string
	over := time.Second
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong on this host, with evidence and fix",
		Long: "Say what is wrong with the networks of this host, whoever made them, from the state of its\n" +
			"kernel. Counters of lost packets are read twice, to tell those that rise.\n\n" +
			"--fix mends what is Towpath's own. --fix=CHECK,... also sets the parameters of the host that\n" +
			"findings of the checks named ask for. Nothing else is ever changed.\n\n" +
			"Exit code: 0 if nothing is wrong, 1 if anything is, 3 if it could not be determined.",
		Example: "  towpath doctor || true\n  towpath doctor --fix || true\n  towpath doctor --fix=ip-forward,rp-filter --over 0s || true",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var asked *api.Fix
			if cmd.Flags().Changed("fix") {
				asked = &api.Fix{Checks: []string{}}
				for _, name := range fix {
					if name != ours {
						asked.Checks = append(asked.Checks, name)
					}
				}
			}
			d, err := c.client().Doctor(cmd.Context(), over, asked)
			switch {
			case lost(err) || api.CodeOf(err) == api.Invalid || api.CodeOf(err) == api.NotFound:
				return err
			case err != nil:
				return &outcome{exitUnknown, err}
			}
			if err := c.printDiagnosis(d); err != nil {
				return err
			}
			switch {
			case d.Found():
				return &outcome{code: exitRefused}
			case d.Unsure():
				return &outcome{code: exitUnknown}
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&fix, "fix", nil, "mend what is Towpath's own, and set what the checks named ask for")
	cmd.Flags().Lookup("fix").NoOptDefVal = ours
	cmd.Flags().DurationVar(&over, "over", over, "time between two readings of the counters; 0s: read them once")
	return c.output(c.completeArgs(cmd))
}

// ours is what --fix without a value stands for.
const ours = "ours"

// printDiagnosis prints a block a finding, and a line that sums up.
func (c *cli) printDiagnosis(d api.Diagnosis) error {
	if c.json {
		return c.printJSON(d)
	}
	counts := map[api.Severity]int{}
	for _, f := range d.Findings {
		word := strings.ToUpper(string(f.Severity))
		if f.Fixed {
			word = "FIXED"
		} else {
			counts[f.Severity]++
		}
		lines := []string{fmt.Sprintf("%-6s  %s: %s", word, f.Check, f.Summary)}
		for _, ev := range f.Evidence {
			lines = append(lines, "        seen: "+ev.Where+": "+ev.What)
		}
		lines = append(lines, "        so:   "+f.Consequence)
		if !f.Fixed && f.Fix != "" {
			lines = append(lines, "        fix:  "+f.Fix+byFix(f))
		}
		if err := c.println(strings.Join(lines, "\n") + "\n"); err != nil {
			return err
		}
	}
	for _, check := range d.Checks {
		if check.Unsure != "" {
			if err := c.println("UNSURE  " + check.Name + ": " + check.Unsure); err != nil {
				return err
			}
		}
	}
	return c.println(sum(len(d.Checks), counts))
}

// byFix says how --fix does it.
func byFix(f api.Finding) string {
	switch {
	case f.Ours && !strings.Contains(f.Fix, "--fix"):
		return "   # or: towpath doctor --fix"
	case f.Settable:
		return "   # or: towpath doctor --fix=" + f.Check
	}
	return ""
}

func sum(checks int, counts map[api.Severity]int) string {
	var words []string
	for _, s := range []api.Severity{api.Fault, api.Risk, api.Remark} {
		switch n := counts[s]; {
		case n == 1:
			words = append(words, "1 "+string(s))
		case n > 1:
			words = append(words, fmt.Sprintf("%d %ss", n, s))
		}
	}
	if counts[api.Fault]+counts[api.Risk] == 0 {
		words = append([]string{"nothing is wrong"}, words...)
	}
	return fmt.Sprintf("%d checks: %s", checks, strings.Join(words, ", "))
}
