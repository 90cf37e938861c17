package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is where commands are looked for when PATH is not set.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// config is what Run tells the init step; numbers are descriptors.
type config struct {
	Parent int `json:"parent"`
	Report int `json:"report"`
	// Netns is -1 where no namespace is to be entered.
	Netns    int    `json:"netns"`
	Hostname string `json:"hostname"`
	Hosts    string `json:"hosts"`
	Resolv   string `json:"resolv"`
}

// Init is the init step of Run; args are the program's behind InitArg. It
// becomes the command, and returns an exit code only if it cannot.
func Init(args []string) int {
	runtime.LockOSThread()
	var cfg config
	if len(args) < 2 || json.Unmarshal([]byte(args[0]), &cfg) != nil {
		fmt.Fprintf(os.Stderr, "towpath: %s is for Towpath's own use\n", InitArg)
		return CodeFailed
	}
	unix.CloseOnExec(cfg.Report)
	failure := become(cfg, args[1:])
	text, err := json.Marshal(report{failure.Code, failure.Error()})
	if err == nil {
		_, err = unix.Write(cfg.Report, text)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "towpath: %v (and could not report it: %v)\n", failure, err)
	}
	return failure.Code
}

// become turns this process into argv in the namespaces of cfg.
func become(cfg config, argv []string) *Failure {
	// The signal belongs to the calling thread, and the thread that executes is
	// the one that stays: the parent cannot set it for us before.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return failed("tie command to towpath: %w", err)
	}
	if os.Getppid() != cfg.Parent {
		return failed("towpath died")
	}
	if cfg.Netns >= 0 {
		unix.CloseOnExec(cfg.Netns)
		if err := enter(cfg); err != nil {
			return failed("%w", err)
		}
	}
	return execute(argv)
}

// enter moves the calling thread into the sandbox's network namespace, and
// mount and UTS namespaces of its own.
func enter(cfg config) error {
	if err := unix.Setns(cfg.Netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w%s", err, needsRoot(err))
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare mounts and host name: %w%s", err, needsRoot(err))
	}
	// Slave: mounts of the command stay here, while those the host takes away
	// go here too and are not kept busy.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts apart: %w", err)
	}
	err := overlayFiles(map[string]string{
		"/etc/hosts":       cfg.Hosts,
		"/etc/resolv.conf": cfg.Resolv,
		"/etc/hostname":    cfg.Hostname + "\n",
	})
	if err != nil {
		return err
	}
	renewSys()
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set host name %s: %w", cfg.Hostname, err)
	}
	return nil
}

func needsRoot(err error) string {
	if errors.Is(err, unix.EPERM) {
		return "; be root, or root of the user namespace that owns the sandbox"
	}
	return ""
}

// execute is like execvp(3): the first candidate in PATH that the kernel takes.
func execute(argv []string) *Failure {
	var denied error
	for _, path := range candidates(argv[0]) {
		err := syscall.Exec(path, argv, os.Environ())
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.EACCES):
			if path == argv[0] || isFile(path) {
				denied = err
			}
		default:
			return &Failure{CodeNotExecutable, fmt.Errorf("execute %s: %w", path, err)}
		}
	}
	if denied != nil {
		return &Failure{CodeNotExecutable, fmt.Errorf("execute %s: %w", argv[0], denied)}
	}
	if strings.Contains(argv[0], "/") {
		return &Failure{CodeNotFound, fmt.Errorf("execute %s: %w", argv[0], unix.ENOENT)}
	}
	return &Failure{CodeNotFound, fmt.Errorf("execute %q: not found in PATH", argv[0])}
}

// isFile reports whether a file is seen at path. A directory in PATH that may
// not be searched gives EACCES too, and says nothing of the command.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// candidates is where a command may be; an empty part of PATH is the working
// directory.
func candidates(name string) []string {
	if name == "" {
		return nil
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path, ok := os.LookupEnv("PATH")
	if !ok {
		path = defaultPath
	}
	var out []string
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		// Not Join, which would drop "./".
		out = append(out, dir+"/"+name)
	}
	return out
}
