package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/klog/v2"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/lab/internal/load"
)

// endPipe is the file descriptor, in the half of load that is inside the lab,
// whose end tells it to end.
const endPipe = 3

type loadFlags struct {
	options load.Options
	output  string
	inside  bool
}

func newLoadCommand(p *place) *cobra.Command {
	var f loadFlags
	c := &cobra.Command{
		Use:   "load",
		Short: "Make steady traffic over every link, and report each request that fails",
		Long: `Make steady traffic over every link of the lab that a user would notice: reads,
writes and watches, new connections, the kubelets' API, aggregated calls, the
webhook, tokens, pods, kube-proxy, joining nodes, leases, etcd. No request is tried
a second time. Each one that fails is a line on stderr as it happens, with time,
stream, link and error; a table at the end says what has become of all. Links that
this lab does not have are named.

Exit codes: 0 no request failed, 1 could not run, 2 wrong usage, 3 requests failed.`,
		Example: `  # While you rotate something in another terminal; end it with Ctrl-C
  kubepki-lab load --for 0

  # New connections alone, ten times as many, until the first one fails
  kubepki-lab load --stream new-connection --rate 10 --fail-fast

  kubepki-lab load --for 1m -o json`,
		Args: none("load"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if f.inside {
				return f.run(c, p)
			}
			return f.runInside(c.Context(), p)
		},
	}
	flags := c.Flags()
	flags.DurationVar(&f.options.For, "for", 10*time.Minute, "how long; 0: until it is interrupted")
	flags.StringArrayVar(&f.options.Streams, "stream", nil, "name of a stream, or of its kind without a node; may be given again (default: all)")
	flags.Float64Var(&f.options.Rate, "rate", 1, "how many times as often as usual")
	flags.DurationVar(&f.options.Timeout, "timeout", 30*time.Second, "how long one request may take")
	flags.BoolVar(&f.options.FailFast, "fail-fast", false, "end with the first failure")
	flags.StringVarP(&f.output, "output", "o", "table", "table, json or yaml")
	flags.BoolVar(&f.inside, "inside", false, "run here, inside of the lab")
	_ = flags.MarkHidden("inside") // the flag is there
	return c
}

func (f *loadFlags) check() error {
	switch {
	case f.options.For < 0:
		return usagef("--for %s: is negative", f.options.For)
	case f.options.Timeout <= 0:
		return usagef("--timeout %s: is not above zero", f.options.Timeout)
	case !(f.options.Rate >= 0.01 && f.options.Rate <= 100): // not a number neither
		return usagef("--rate %v: from 0.01 to 100 are possible", f.options.Rate)
	case f.output != "table" && f.output != "json" && f.output != "yaml":
		return usagef("--output %q is not table, json or yaml", f.output)
	}
	return nil
}

// runInside starts the program again inside of the lab, and waits for it. It
// stays outside itself, so that a signal reaches it: between the two is nsenter,
// which hands none on. The one inside ends in order when the pipe does, however
// this one ends.
func (f *loadFlags) runInside(ctx context.Context, p *place) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	nsenter, arguments, err := p.enter("")
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	cmd := exec.Command(nsenter, append(append(arguments[1:], self), append(os.Args[1:], "--inside")...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{read}                     // endPipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's signals are for this one
	if err := cmd.Start(); err != nil {
		return err
	}
	read.Close()
	defer context.AfterFunc(ctx, func() { write.Close() })()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitError(exit.ExitCode())
	}
	return err
}

// run makes the traffic.
func (f *loadFlags) run(c *cobra.Command, p *place) error {
	folder, err := p.folder()
	if err != nil {
		return err
	}
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what client-go says of a failure is in its error
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(endPipe, "end")) // nothing is ever written
		cancel()
	}()
	o := f.options
	o.Folder = folder
	talk := newTalk(c.ErrOrStderr(), o.For)
	o.OnFailure, o.OnProgress = talk.failure, talk.progress
	r, err := load.Run(ctx, o)
	talk.clear()
	if errors.Is(err, load.ErrStream) {
		return usageError{fmt.Errorf("--stream: %w", err)}
	}
	if err != nil {
		return err
	}
	if f.output == "table" {
		err = r.Table(c.OutOrStdout())
	} else {
		err = report.Document(c.OutOrStdout(), f.output, r)
	}
	if err == nil && r.Failed > 0 {
		return exitError(3)
	}
	return err
}

// talk writes what happens while traffic is made. Its methods may be called from
// several goroutines.
type talk struct {
	w        io.Writer
	whole    time.Duration
	terminal bool
	mu       sync.Mutex
}

func newTalk(w io.Writer, whole time.Duration) *talk {
	t := &talk{w: w, whole: whole}
	if file, ok := w.(*os.File); ok {
		t.terminal = term.IsTerminal(int(file.Fd()))
	}
	return t
}

func (t *talk) write(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, format, args...)
}

// eraseLine takes away what progress wrote.
const eraseLine = "\r\x1b[K"

func (t *talk) clear() {
	if t.terminal {
		t.write(eraseLine)
	}
}

func (t *talk) failure(f load.Failure) {
	erase := ""
	if t.terminal {
		erase = eraseLine
	}
	t.write("%s%s %s (link %d): %s\n", erase, f.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), f.Stream, f.Link, f.Error)
}

func (t *talk) progress(p load.Progress) {
	if !t.terminal {
		return
	}
	of := ""
	if t.whole > 0 {
		of = " of " + t.whole.String()
	}
	t.write("%s%s%s: %d requests, %d failed", eraseLine, p.Elapsed.Round(time.Second), of, p.Requests, p.Failures)
}
