// Command summary runs `go test -json` with the arguments it is given and tells the outcome in
// words: a line per package, the output of what failed, what was skipped and why, and one closing
// line. Its exit code is not zero when any test, build or set-up failed.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "summary: %v\n", err)
	}
	os.Exit(code)
}

// run starts `go test -json args`, reports its events to out, and returns the exit code to end
// with. It runs go test itself, instead of reading its output from a pipe, because a shell keeps
// only the exit code of the last command of a pipe.
func run(args []string, out, errOut io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = errOut
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, fmt.Errorf("open pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start go test: %w", err)
	}
	failed, readErr := summarize(events, out)
	return exitCode(failed, cmd.Wait(), readErr)
}

// exitCode joins the three ways a run can fail. Go test ends with an error and no event of a
// failure when it cannot even load the packages.
func exitCode(failed int, waitErr, readErr error) (int, error) {
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return 1, readErr
	case errors.As(waitErr, &exit) && failed > 0:
		return 1, nil
	case waitErr != nil:
		return 1, fmt.Errorf("run go test: %w", waitErr)
	case failed > 0:
		return 1, nil
	}
	return 0, nil
}
