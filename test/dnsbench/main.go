// Command dnsbench measures the resolver beside those of Docker and Podman and
// dnsmasq: queries a second, latency and the processor time of a query, for
// local names, for names from a cache and for names that are asked upstream. All
// run in throw-away namespaces on one machine and take turns; what counts is the
// median of the ratios of neighbouring runs, not the figures.
//
// Usage: dnsbench [-quick] [-rounds N] [-time D] [-strict]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/towpath/towpath/internal/testnet"
)

// timeout ends a run that does not get on.
const timeout = 15 * time.Minute

// envInside says that this process is in a PID namespace of the benchmark's own:
// what it leaves behind ends with it.
const envInside = "TOWPATH_DNSBENCH"

// options is what the flags say.
type options struct {
	rounds int
	time   time.Duration // of one measurement
	strict bool
}

func main() {
	if len(os.Args) > 1 {
		if role, known := roles()[os.Args[1]]; known {
			exit(role(os.Args[2:]))
		}
	}
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		os.Exit(2)
	}
	os.Exit(testnet.Main(o))
}

// roles are what other processes of the benchmark do.
func roles() map[string]func(args []string) error {
	return map[string]func([]string) error{"serve": serve, "upstream": answer, "load": load}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "dnsbench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parse reads the flags; it has told stderr what is wrong with them.
func parse(args []string, stderr io.Writer) (options, error) {
	fs := flag.NewFlagSet("dnsbench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var o options
	quick := fs.Bool("quick", false, "three rounds of 0.3 s each")
	fs.IntVar(&o.rounds, "rounds", 9, "how often each takes its turn")
	fs.DurationVar(&o.time, "time", time.Second, "how long each measurement runs")
	fs.BoolVar(&o.strict, "strict", false, "exit with 1 when a goal is missed")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	if fs.NArg() > 0 || o.rounds < 1 || o.time < 10*time.Millisecond {
		fmt.Fprintln(stderr, "dnsbench: it takes flags only; -rounds is 1 or more, -time 10ms or more")
		return o, errors.New("wrong arguments")
	}
	if *quick {
		o.rounds, o.time = 3, 300*time.Millisecond
	}
	return o, nil
}

// Run is the benchmark, in namespaces of its own.
func (o options) Run() int {
	if reason := os.Getenv("TOWPATH_TESTNET_REASON"); reason != "" {
		fmt.Fprintf(os.Stderr, "dnsbench: it needs network namespaces, and this machine allows none here: %s\nRun it as root, or allow user namespaces.\n", reason)
		return 1
	}
	if os.Getenv(envInside) == "" {
		return confined()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := o.measure(ctx)
	if err == nil {
		err = r.write(os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "dnsbench: %v\n", err)
		return 1
	}
	if o.strict && r.missed() {
		return 1
	}
	return 0
}

// confined runs the benchmark as the first process of a PID namespace: when it
// ends, the kernel ends all that was started there, daemons too.
func confined() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "dnsbench: start in a PID namespace: %v\n", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	_ = cmd.Wait() // its exit code says all
	return max(cmd.ProcessState.ExitCode(), 0)
}

// measure sets all up and lets them take turns.
func (o options) measure(ctx context.Context) (*results, error) {
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer w.close()
	r := &results{}
	for _, p := range peers() {
		if err := w.start(ctx, p); err != nil {
			var absent absentError
			if !errors.As(err, &absent) {
				return nil, fmt.Errorf("start %s: %w", p.name, err)
			}
			r.skipped = append(r.skipped, p.name+": "+absent.Error())
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "dnsbench: round %d of %d\n", round+1, o.rounds)
		for _, l := range loads() {
			for i := range w.running {
				at := (i + round) % len(w.running)
				if round%2 == 1 {
					at = len(w.running) - 1 - at
				}
				m, err := w.measure(ctx, w.running[at], l, o.time)
				if err != nil {
					return nil, fmt.Errorf("measure %s, %s: %w", w.running[at].name, l, err)
				}
				r.runs = append(r.runs, run{round, w.running[at].name, l, m})
			}
		}
	}
	fmt.Fprintln(os.Stderr, "dnsbench: cached names beside local ones")
	if r.neighbours, err = w.neighbours(ctx, o); err != nil {
		return nil, fmt.Errorf("measure cached names beside local ones: %w", err)
	}
	fmt.Fprintln(os.Stderr, "dnsbench: a million queries")
	if r.million, err = w.million(ctx); err != nil {
		return nil, fmt.Errorf("ask a million: %w", err)
	}
	r.idle, err = w.idle(ctx)
	return r, err
}

// command runs a program and returns what it printed. Its error has what it
// printed to stderr.
func command(ctx context.Context, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(failed.Stderr)))
	}
	if err != nil {
		err = fmt.Errorf("run %s: %w", strings.Join(argv[:min(len(argv), 3)], " "), err)
	}
	return strings.TrimSpace(string(out)), err
}
