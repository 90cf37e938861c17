package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/spawn"
)

// background is what run -d prints as JSON.
type background struct {
	Name   string `json:"name"`
	Output string `json:"output"`
	// PID is the process that the sandbox goes with. It hands signals on to the
	// command.
	PID int `json:"pid"`
}

// detach carries out this command line in the background.
func (c *cli) detach() error {
	said, code, err := spawn.Detach(c.args)
	if err != nil {
		return err
	}
	if _, err := c.out.Write(said); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	// Why it failed, the background process has told.
	return ended(code, nil)
}

// start runs a command: as the caller does, or as the background part of run -d.
func (c *cli) start(name string, cmd spawn.Command) error {
	if !c.detached {
		return ended(spawn.Run(cmd))
	}
	log, err := openLog(name)
	if err != nil {
		return err
	}
	defer closeFile(log)
	var settled error
	cmd.Output, cmd.Running = log, func() { settled = c.settle(background{name, log.Name(), os.Getpid()}, log) }
	code, err := spawn.Run(cmd)
	if settled != nil {
		c.warn("%v", settled)
	}
	return ended(code, err)
}

// settle tells the waiting foreground process that the command runs, and lets
// go of what is its: the streams.
func (c *cli) settle(b background, log *os.File) error {
	said := []byte(b.Name + "\n")
	if c.json {
		text, err := json.MarshalIndent(b, "", "  ")
		if err != nil {
			return err
		}
		said = append(text, '\n')
	} else {
		fmt.Fprintf(c.errs, "towpath: its output goes to %s\n", b.Output)
	}
	return spawn.Settle(said, log)
}

// openLog opens the file for what a background command prints. It belongs to
// the user alone, and is not one that somebody else put there: the directory
// is the user's.
func openLog(name string) (*os.File, error) {
	// It becomes part of a path.
	if err := api.ValidName("sandbox", name); err != nil {
		return nil, err
	}
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for output: %w", err)
	}
	// Appending: this process and the command write to it.
	f, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open file for output: %w", err)
	}
	return f, nil
}

// stateDir is where programs keep what is not worth a backup (XDG Base
// Directory Specification).
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "towpath"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", api.Errorf(api.Invalid, "there is no place for the output: %w", err).WithFix("set HOME or XDG_STATE_HOME")
	}
	return filepath.Join(home, ".local", "state", "towpath"), nil
}
