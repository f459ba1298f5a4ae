package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// downWait is for all components to end in order; then they are killed.
const downWait = 40 * time.Second

// tellWait is for the lab to answer that it will.
const tellWait = 10 * time.Second

func newDownCommand(p *place) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster, all of its processes",
		Long: `Stop the cluster: every process that up has started. Its folder stays, and up
resumes it, unless --remove is given.`,
		Example: `  kubepki-lab down
  kubepki-lab down --remove
  kubepki-lab down --dir ./rehearsal`,
		Args: none("down"),
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := p.folder()
			if err != nil {
				return err
			}
			if err := end(c.Context(), folder); err != nil {
				return err
			}
			if !remove {
				return nil
			}
			return folder.Remove()
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "remove the lab's folder too")
	return c
}

// end stops the lab if it runs.
func end(ctx context.Context, f cluster.Folder) error {
	up, err := runs(f)
	if err != nil || !up {
		return err
	}
	if tell(ctx, f) == nil && awaitDown(ctx, f, downWait) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err() // the user's own wish; it may be on its way down
	}
	// It does not answer, or takes too long: the kernel ends every process of
	// the lab with its first one.
	first, err := readFirst(f)
	if err != nil {
		return err
	}
	if err := unix.Kill(first, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the lab's first process %d: %w", first, err)
	}
	return awaitDown(ctx, f, downWait)
}

// tell tells the lab to end. One that has only just been started does not listen
// yet; one that hangs never answers.
func tell(ctx context.Context, f cluster.Folder) error {
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	for {
		client, err := supervisor.NewClient(f)
		if err == nil {
			err = errors.Join(client.Down(ctx), client.Close())
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awaitDown waits until no process of the lab holds the lock.
func awaitDown(ctx context.Context, f cluster.Folder, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		up, err := runs(f)
		if err != nil || !up {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the lab in %s has not ended: %w", f, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
