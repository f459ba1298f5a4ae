package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// newSuperviseCommand is the program that runs the lab, in the background: up
// starts it. Its outer half holds the lock and the way in; its inner half, in
// the namespaces, does the work.
func newSuperviseCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use: "supervise", Short: "Run the lab (up does this in the background)", Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			folder, programs, err := p.both()
			if err != nil {
				return err
			}
			wanted, err := folder.Wanted()
			if err != nil {
				return err
			}
			if wanted.Loopback {
				return superviseOnLoopback(c.Context(), folder, programs)
			}
			outside := lab.Outside{}
			if !lab.Inside() {
				if outside, err = prepareOutside(folder); err != nil {
					return err
				}
			}
			return asExit(outside.Main(func() int { return superviseInside(folder, programs) }))
		},
	}
}

// superviseOnLoopback does all of it without namespaces.
func superviseOnLoopback(ctx context.Context, f cluster.Folder, programs string) error {
	lock, err := takeLock(f)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := writeFirst(f, os.Getpid()); err != nil {
		return err
	}
	return supervisor.Run(ctx, supervisor.Options{Folder: f, Programs: programs, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}

// takeLock takes the lock of a lab's folder, until the file is closed.
func takeLock(f cluster.Folder) (*os.File, error) {
	lock, err := os.OpenFile(f.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// Whoever looks whether the lab runs holds the lock for a moment.
	for range 50 {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return lock, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("a lab runs in %s already: %w", f, err), lock.Close())
}

func asExit(code int) error {
	if code == 0 {
		return nil
	}
	return exitError(code)
}

// prepareOutside takes the lock and opens the way in. Both are handed on to the
// inner half, so that the lock is held as long as any of the two is there.
func prepareOutside(f cluster.Folder) (lab.Outside, error) {
	lock, err := takeLock(f)
	if err != nil {
		return lab.Outside{}, err
	}
	listener, err := listenProxy(f)
	if err != nil {
		return lab.Outside{}, err
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return lab.Outside{}, err
	}
	return lab.Outside{
		Files:   []*os.File{lock, socket},
		Started: func(pid int) error { return writeFirst(f, pid) },
	}, nil
}

// listenProxy listens on loopback, on the port of the last time if it is free,
// so that kubeconfigs that somebody copied stay good.
func listenProxy(f cluster.Folder) (net.Listener, error) {
	file := filepath.Join(f.Run(), "proxy")
	if last, err := os.ReadFile(file); err == nil {
		if listener, err := net.Listen("tcp", strings.TrimSpace(string(last))); err == nil {
			return listener, nil
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return listener, os.WriteFile(file, []byte(listener.Addr().String()+"\n"), 0o600)
}

// superviseInside is the inner half.
func superviseInside(f cluster.Folder, programs string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	const lock, listener = 3, 4 // of prepareOutside
	unix.CloseOnExec(lock)      // for this process alone, not for what it starts
	unix.CloseOnExec(listener)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	proxy, err := net.FileListener(os.NewFile(listener, "proxy"))
	if err == nil {
		err = supervisor.Run(ctx, supervisor.Options{Folder: f, Programs: programs, Proxy: proxy, Log: log})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kubepki-lab: error: %v\n", err)
		return 1
	}
	return 0
}

// started are the number and the start time of the lab's first process, seen
// from outside: by both it can be told from a later process of that number.
type started struct {
	pid   int
	ticks string
}

func firstFile(f cluster.Folder) string { return filepath.Join(f.Run(), "first") }

func writeFirst(f cluster.Folder, pid int) error {
	ticks, err := startTicks(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(firstFile(f), fmt.Appendf(nil, "%d %s\n", pid, ticks), 0o600)
}

// readFirst returns the first process of a lab that runs.
func readFirst(f cluster.Folder) (int, error) {
	data, err := os.ReadFile(firstFile(f))
	if err != nil {
		return 0, err
	}
	var s started
	if _, err := fmt.Sscan(string(data), &s.pid, &s.ticks); err != nil {
		return 0, fmt.Errorf("%s: %w", firstFile(f), err)
	}
	ticks, err := startTicks(s.pid)
	if err != nil || ticks != s.ticks {
		return 0, errors.Join(errNotUp, err)
	}
	return s.pid, nil
}

// startTicks is the start time of a process, field 22 of proc_pid_stat(5).
func startTicks(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The program's name, in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(data[max(0, strings.LastIndex(string(data), ")")):]), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[19], nil
}
