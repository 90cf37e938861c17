package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/spawn"
	"github.com/towpath/towpath/internal/term"
)

// Exit codes. Scripts depend on them.
const (
	exitRefused = 1
	exitUsage   = 2
	// exitUnknown: the command's exit code is an answer, and there is none.
	exitUnknown  = 3
	exitNoDaemon = 125
)

// usage says that a command line is not one of Towpath's.
type usage struct{ text, fix string }

func (u *usage) Error() string {
	if strings.HasSuffix(u.text, "?") {
		return u.text + " " + u.fix
	}
	return u.text + "; " + u.fix
}

// usagef makes a usage error of cmd.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if cmd.HasParent() {
		text = strings.TrimPrefix(cmd.CommandPath(), "towpath ") + ": " + text
	}
	return &usage{text, "see: " + cmd.CommandPath() + " --help"}
}

// outcome is an exit code of its own; err is nil where it says all.
type outcome struct {
	code int
	err  error
}

func (o *outcome) Error() string { return fmt.Sprintf("exit code %d", o.code) }

// Unwrap gives what is to be told.
func (o *outcome) Unwrap() error { return o.err }

// flagError sorts what pflag found: a value that is malformed is invalid, the
// rest is wrong usage.
func flagError(cmd *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &bad):
		return valueError("--"+bad.GetFlag().Name, err)
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return unknownFlag(cmd, unknown.GetSpecifiedName())
	}
	return usagef(cmd, "%v", err)
}

func unknownFlag(cmd *cobra.Command, name string) error {
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if near := term.Near(name, known); len(near) > 0 {
		return usagef(cmd, "unknown flag --%s; did you mean --%s?", name, strings.Join(near, " or --"))
	}
	return usagef(cmd, "unknown flag --%s", name)
}

// valueError says of what was written at a place that its value is malformed.
func valueError(place string, err error) error {
	var own *api.Error
	if errors.As(err, &own) {
		e := *own
		e.Detail = place + ": " + e.Detail
		return &e
	}
	var number *strconv.NumError
	if errors.As(err, &number) {
		return numberError(place, number)
	}
	return api.Errorf(api.Invalid, "%s: %w", place, err)
}

// numberError says what strconv found in the place of a number or of true and false.
func numberError(place string, e *strconv.NumError) error {
	switch {
	case e.Func == "ParseBool":
		return api.Errorf(api.Invalid, "%s: %q is neither true nor false", place, e.Num).WithFix("write one of the two")
	case errors.Is(e.Err, strconv.ErrRange):
		return api.Errorf(api.Invalid, "%s: %s is out of range", place, e.Num).WithFix("choose a smaller one")
	}
	return api.Errorf(api.Invalid, "%s: %q is not a whole number", place, e.Num).WithFix("write it in digits")
}

// finish tells of err, which may be several, and returns the exit code.
func (c *cli) finish(cmd *cobra.Command, args []string, err error) int {
	code := 0
	for _, e := range leaves(err) {
		code = max(code, exitCode(cmd, e))
		var o *outcome
		if errors.As(e, &o) && o.err == nil {
			continue
		}
		c.tell(cmd, c.json || !c.parsed && asksJSON(args), e)
	}
	return code
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, leaves(e)...)
	}
	return out
}

func exitCode(cmd *cobra.Command, err error) int {
	var o *outcome
	var none *client.NoDaemon
	var wrong *usage
	switch {
	case errors.As(err, &o):
		return o.code
	case errors.As(err, &none):
		return exitNoDaemon
	case cmd.Name() == "run" || cmd.Name() == "exec":
		return spawn.CodeFailed
	case errors.As(err, &wrong):
		return exitUsage
	}
	return exitRefused
}

// tell prints err on one line, or as a problem document.
func (c *cli) tell(cmd *cobra.Command, asJSON bool, err error) {
	p := problem(cmd, err)
	if asJSON {
		if text, err := json.Marshal(p); err == nil {
			fmt.Fprintf(c.errs, "%s\n", text)
			return
		}
	}
	line := p.Err().Error()
	var none *client.NoDaemon
	var wrong *usage
	if errors.As(err, &none) || errors.As(err, &wrong) {
		line = err.Error()
	}
	fmt.Fprintln(c.errs, "towpath: "+strings.ReplaceAll(line, "\n", "; "))
}

// problem is err as a document.
func problem(cmd *cobra.Command, err error) api.Problem {
	var none *client.NoDaemon
	var wrong *usage
	var e *api.Error
	switch {
	case errors.As(err, &none):
		return none.Problem()
	case errors.As(err, &wrong):
		e = api.Errorf(api.Invalid, "%s", wrong.text).WithFix("%s", wrong.fix)
	default:
		var o *outcome
		if errors.As(err, &o) {
			err = o.err
		}
		errors.As(api.InOp(opOf(cmd), err), &e)
	}
	return e.Problem()
}

// opOf is the verb and noun of a command: "create network" for network create.
func opOf(cmd *cobra.Command) string {
	path := strings.Fields(cmd.CommandPath())[1:]
	slices.Reverse(path)
	return strings.Join(path, " ")
}

// asksJSON reports whether JSON is asked for somewhere in a command line,
// which matters where parsing stopped before it came to that.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	for i, arg := range args {
		switch arg {
		case "--json", "--json=true", "-ojson", "-o=json", "--output=json":
			return true
		case "json":
			return i > 0 && (args[i-1] == "-o" || args[i-1] == "--output")
		}
	}
	return false
}
