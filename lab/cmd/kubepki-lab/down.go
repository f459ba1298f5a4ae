package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// downWait is for all components to end in order; then they are killed.
const downWait = 40 * time.Second

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
			return removeLab(folder)
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
	client, err := supervisor.NewClient(f)
	if err == nil {
		err = errors.Join(client.Down(ctx), client.Close())
	}
	if err == nil && awaitDown(ctx, f, downWait) == nil {
		return nil
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

// removeLab removes the folder of a lab, and nothing that is not one.
func removeLab(f cluster.Folder) error {
	if _, err := f.Wanted(); err != nil {
		return err
	}
	return os.RemoveAll(string(f))
}
