package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/lab"
)

func newLogsCommand(p *place) *cobra.Command {
	var follow bool
	var tail int
	c := &cobra.Command{
		Use:   "logs COMPONENT|NODE|NODE/COMPONENT",
		Short: "Print the logs of components",
		Example: `  kubepki-lab logs cp1/kube-apiserver
  kubepki-lab logs --tail 20 etcd
  kubepki-lab logs -f w1/kubelet`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("logs: name one component, node, or NODE/COMPONENT; kubepki-lab status lists them")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			folder, err := p.folder()
			if err != nil {
				return err
			}
			if tail < -1 {
				return usagef("--tail %d: a number of lines, or -1 for all", tail)
			}
			files, err := logFiles(folder.Logs(), args[0])
			if err != nil {
				return err
			}
			if follow && len(files) > 1 {
				return usagef("logs -f follows one component, and %q names %d: say NODE/COMPONENT", args[0], len(files))
			}
			for _, file := range files {
				if err := printLog(c.Context(), c.OutOrStdout(), file, tail, follow); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the log grows")
	c.Flags().IntVar(&tail, "tail", -1, "lines from the end; -1: all")
	return c
}

// logFiles are the logs that a name names.
func logFiles(dir, name string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	var files, names []string
	for _, file := range all {
		base := strings.TrimSuffix(filepath.Base(file), ".log")
		names = append(names, base)
		if base == strings.ReplaceAll(name, "/", "-") || strings.HasSuffix(base, "-"+name) || strings.HasPrefix(base, name+"-") {
			files = append(files, file)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no logs in %s: no lab was ever up there", dir)
	}
	if len(files) == 0 {
		return nil, usagef("no log of %q: there are %s", name, strings.Join(names, ", "))
	}
	return files, nil
}

// printLog prints the last lines of a log, and those that come if it is followed
// until the context ends.
func printLog(ctx context.Context, w io.Writer, file string, tail int, follow bool) error {
	log, err := os.Open(file)
	if err != nil {
		return err
	}
	defer log.Close()
	reader := bufio.NewReader(log)
	var lines []string
	var redactor lab.Redactor
	print := func(line string) error {
		_, err := fmt.Fprint(w, line)
		return err
	}
	for following := false; ; {
		line, err := reader.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		line = redactor.Line(line)
		switch {
		case line != "" && following:
			if err := print(line); err != nil {
				return err
			}
		case line != "":
			lines = append(lines, line)
			if tail >= 0 && len(lines) > tail {
				lines = lines[1:]
			}
		}
		if err == nil {
			continue
		}
		for _, line := range lines {
			if err := print(line); err != nil {
				return err
			}
		}
		lines, following = nil, true
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}
