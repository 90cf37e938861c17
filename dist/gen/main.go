// Command gen makes what is installed beside the binaries and says the same as
// they do: man pages, from the help of each command, and the completions of
// shells. It asks the binaries, so it needs nothing of them but what they print.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen DIR\n\nmakes DIR/share by the binaries in DIR")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "gen: %v\n", err)
		os.Exit(1)
	}
}

// generate replaces the folder share in dir.
func generate(dir string) error {
	tools, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	share := filepath.Join(tools, "share")
	if _, err := output(tools, "towpathd", "--version"); errors.Is(err, syscall.ENOEXEC) {
		temp, err := native()
		defer os.RemoveAll(temp)
		if err != nil {
			return err
		}
		tools = temp
	}
	files, err := everything(tools)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(share); err != nil { // pages of commands that are no more
		return fmt.Errorf("replace %s: %w", share, err)
	}
	for name, text := range files {
		path := filepath.Join(share, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// native builds the binaries for this machine, where those that were built are
// for another.
func native() (dir string, err error) {
	dir, err = os.MkdirTemp("", "towpath-gen-")
	if err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	if text, err := exec.Command("go", "build", "-o", dir, "./cmd/towpath", "./cmd/towpathd").CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build for this machine: %w: %s", err, text)
	}
	return dir, nil
}

// everything is the files, by their path below share.
func everything(tools string) (map[string]string, error) {
	files := map[string]string{}
	version, err := output(tools, "towpathd", "--version")
	if err != nil {
		return nil, err
	}
	m := manual{
		help:    func(program string, args ...string) (string, error) { return output(tools, program, args...) },
		version: strings.TrimSpace(strings.TrimPrefix(version, "towpathd ")),
		pages:   files,
	}
	if err := m.client(nil, "networks for containers, and the path of every packet"); err != nil {
		return nil, err
	}
	if err := m.daemon(); err != nil {
		return nil, err
	}
	for shell, path := range map[string]string{
		"bash": "bash-completion/completions/towpath",
		"zsh":  "zsh/site-functions/_towpath",
		"fish": "fish/vendor_completions.d/towpath.fish",
	} {
		if files[path], err = output(tools, "towpath", "completion", shell); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// output runs a program and gives what it prints. towpathd's help goes to its
// standard error, where it has no other.
func output(tools, program string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(tools, program), args...)
	// What the environment says would become what the page says.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", program, strings.Join(args, " "), err, text)
	}
	return string(text), nil
}
