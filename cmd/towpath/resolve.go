package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

func (c *cli) resolve() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resolve SANDBOX NAME [TYPE]", Short: "Say what a sandbox is told when it asks for a name, and by whom",
		Long: "Ask for a name as the sandbox would, and say who answers: the names of sandboxes, the cache, or which server\n" +
			"upstream; or why nobody does. NAME may be an address, which is asked for its name. Without TYPE both kinds of\n" +
			"addresses are asked for. Search domains are the C library's: write the name in full.\n\n" +
			"Exit code 0 if there is an answer with something in it, 1 if not.",
		Example: "  towpath resolve web db\n" +
			"  towpath resolve web _80._tcp.db SRV\n" +
			"  towpath resolve --json web host.towpath.internal A",
		Args: words("SANDBOX", "NAME", "[TYPE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := ""
			if len(args) > 2 {
				kind = args[2]
			}
			r, err := c.client().Resolve(cmd.Context(), args[0], args[1], kind)
			if err != nil {
				return err
			}
			if err := c.printResolution(r); err != nil {
				return err
			}
			if !r.Found() {
				return &outcome{code: exitRefused}
			}
			return nil
		},
	}
	return c.output(c.completeArgs(cmd, c.sandboxNames))
}

// printResolution prints a line a record, as dig does, and below them one on
// who gave the answer.
func (c *cli) printResolution(r api.Resolution) error {
	if c.json {
		return c.printJSON(r)
	}
	for _, a := range r.Answers {
		for _, rec := range a.Records {
			if err := c.println(fmt.Sprintf("%s\t%d\t%s\t%s", rec.Name, rec.TTL, rec.Type, rec.Data)); err != nil {
				return err
			}
		}
		if err := c.println(toldBy(a)); err != nil {
			return err
		}
	}
	return nil
}

// toldBy says of an answer what it was and who gave it:
// "AAAA: NOERROR, empty, from names: a name on network front".
func toldBy(a api.Answer) string {
	words := []string{a.Type + ": " + a.Code}
	if len(a.Records) == 0 && a.Code == "NOERROR" {
		words = append(words, "empty")
	}
	words = append(words, "from "+a.Source)
	if a.AgeSeconds > 0 {
		words = append(words, fmt.Sprintf("%.0f s old", a.AgeSeconds))
	}
	if a.Stale {
		words = append(words, "stale")
	}
	return strings.Join(words, ", ") + ": " + a.Why
}
