package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// statusWait is for the lab to look at all of its components.
const statusWait = 30 * time.Second

func newStatusCommand(p *place) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the components, their processes and serving certificates",
		Example: `  kubepki-lab status
  kubepki-lab status -o json
  kubepki-lab status -o wide --dir ./rehearsal`,
		Args: none("status"),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.withClient(c.Context(), func(ctx context.Context, client *supervisor.Client) error {
				asking, cancel := context.WithTimeout(ctx, statusWait)
				defer cancel()
				status, err := client.Status(asking)
				if err != nil {
					return hintedError{err, "if the lab does not answer, kubepki-lab down ends it"}
				}
				folder, err := p.folder()
				if err != nil {
					return err
				}
				first, err := readFirst(folder)
				if err != nil {
					return err
				}
				outsidePIDs(first, status)
				return printStatus(c.OutOrStdout(), output, status)
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table, wide, json or yaml")
	return c
}

func printStatus(w io.Writer, output string, status *supervisor.Status) error {
	switch output {
	case "json", "yaml":
		if err := report.Document(w, output, status); err != nil {
			return err
		}
	case "table", "wide":
		if err := statusTable(w, status, output == "wide"); err != nil {
			return err
		}
	default:
		return usagef("--output %q is not table, wide, json or yaml", output)
	}
	if !status.Ready {
		return exitError(3)
	}
	return nil
}

func statusTable(w io.Writer, status *supervisor.Status, wide bool) error {
	head := []string{"NODE", "COMPONENT", "PID", "STATE", "READY", "RESTARTS", "CERTIFICATE EXPIRES", "SERIAL"}
	if wide {
		head = append(head, "ADDRESS", "MESSAGE")
	}
	var rows [][]string
	for _, c := range status.Components {
		row := []string{c.Node, c.Component, "–", c.State, yes(c.Ready), strconv.Itoa(c.Restarts), "–", "–"}
		address := ""
		if c.PID != 0 {
			row[2] = strconv.Itoa(c.PID)
		}
		if c.Serving != nil {
			row[6], row[7], address = c.Serving.NotAfter.UTC().Format(time.RFC3339), c.Serving.Serial, c.Serving.Address
		}
		if wide {
			row = append(row, address, c.Message)
		}
		rows = append(rows, row)
	}
	if err := report.Table(w, head, rows); err != nil {
		return err
	}
	if status.Message != "" {
		fmt.Fprintf(w, "\nnot set up: %s\n", status.Message)
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
