// Command bench measures, in throw-away network namespaces, what the control
// plane costs for each endpoint: the daemon beside a program that does only the
// unavoidable calls, and beside the naive sequence; and what the data path costs
// a packet: published ports and bridges beside plain routing and a bare link; and
// what watching packets costs those that are not watched for.
// All take turns, so that a busy machine slows them alike, and what counts is
// the median of the ratios, not the times.
//
// Usage: bench [-quick | -sizes N,N] [-part control|path|trace] [-strict] [-state DIR]
// [BIN], the directory of towpathd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/towpath/towpath/internal/testnet"
)

// timeout ends a run that does not get on.
const timeout = 10 * time.Minute

// options is what the flags say.
type options struct {
	bin    string // the directory of towpathd
	state  string // where the stores are: their file system is part of the cost
	sizes  []int
	rounds int // of the data path; 0 leaves it out
	traces int // rounds with and without programs that watch; 0 leaves them out
	strict bool
}

func main() {
	if role := os.Getenv(envPeer); role != "" {
		os.Exit(beAPeer(role))
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

// parse reads the flags; it has told stderr what is wrong with them.
func parse(args []string, stderr io.Writer) (options, error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	o := options{bin: "bin", sizes: []int{10, 100, 1000}, rounds: pathRounds, traces: traceRounds}
	quick := fs.Bool("quick", false, "only at 10 and 100 endpoints")
	fs.Func("sizes", "endpoints to measure at, rising, with commas (default 10,100,1000)", func(list string) (err error) {
		o.sizes, err = parseSizes(list)
		return err
	})
	part := fs.String("part", "", "only this: control (plane), (data) path, or trace")
	fs.BoolVar(&o.strict, "strict", false, "exit with 1 when a goal is missed")
	fs.StringVar(&o.state, "state", os.TempDir(), "directory for the stores; their commits go to its disk")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	if *quick {
		o.sizes, o.rounds, o.traces = []int{10, 100}, quickPathRounds, quickTraceRounds
	}
	switch *part {
	case "":
	case "control":
		o.rounds, o.traces = 0, 0
	case "path":
		o.sizes, o.traces = nil, 0
	case "trace":
		o.sizes, o.rounds = nil, 0
	default:
		fmt.Fprintf(stderr, "bench: -part %q is none of control, path and trace\n", *part)
		return o, errors.New("unknown part")
	}
	switch fs.NArg() {
	case 0:
	case 1:
		o.bin = fs.Arg(0)
	default:
		fmt.Fprintln(stderr, "bench: one directory at most")
		return o, errors.New("too many arguments")
	}
	return o, nil
}

// maxSize leaves a bridge room for what is made beyond a population: it takes
// 1 023 ports (BR_PORT_BITS of net/bridge/br_private.h).
const maxSize = 1000

// parseSizes reads populations.
func parseSizes(list string) ([]int, error) {
	var out []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 2 || n > maxSize || len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%q is not a rising list of numbers from 2 to %d", list, maxSize)
		}
		out = append(out, n)
	}
	return out, nil
}

// Run is the benchmark, in namespaces of its own.
func (o options) Run() int {
	if reason := os.Getenv("TOWPATH_TESTNET_REASON"); reason != "" {
		fmt.Fprintf(os.Stderr, "bench: it needs network namespaces, and this machine allows none here: %s\nRun it as root, or allow user namespaces.\n", reason)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	goals, err := o.parts(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	if o.strict && missed(goals) {
		return 1
	}
	return 0
}

// parts measures and prints what was asked for, and gives the goals.
func (o options) parts(ctx context.Context) (goals []goal, err error) {
	if len(o.sizes) > 0 {
		r, err := o.measure(ctx)
		if err == nil {
			err = r.write(os.Stdout)
		}
		if err != nil {
			return nil, err
		}
		goals = r.goals()
	}
	if o.rounds > 0 {
		p, err := o.measurePaths(ctx, o.rounds)
		if err == nil {
			err = p.write(os.Stdout)
		}
		if err != nil {
			return nil, err
		}
		goals = append(goals, p.goals()...)
	}
	if o.traces > 0 {
		t, err := measureTraces(ctx, o.traces)
		if err == nil {
			err = t.write(os.Stdout)
		}
		if err != nil {
			return nil, err
		}
	}
	return goals, nil
}

// measure sets both hosts up and measures at each size.
func (o options) measure(ctx context.Context) (results, error) {
	dir, err := os.MkdirTemp(o.state, "towpath-bench-")
	if err != nil {
		return results{}, err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(ctx, o.bin, dir)
	if err != nil {
		return results{}, err
	}
	defer w.close()
	var r results
	for _, n := range o.sizes {
		fmt.Fprintf(os.Stderr, "bench: measuring at %d endpoints\n", n)
		s, err := w.at(ctx, n)
		if err != nil {
			return r, fmt.Errorf("measure at %d endpoints: %w", n, err)
		}
		r.sizes = append(r.sizes, s)
	}
	r.restart, err = w.restart(ctx)
	if err != nil {
		return r, fmt.Errorf("measure restart: %w", err)
	}
	return r, nil
}
