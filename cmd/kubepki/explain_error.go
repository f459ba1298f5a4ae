package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/report"
)

// unknownError is for lines that hold nothing of the catalogue.
type unknownError struct{}

func (unknownError) Error() string {
	return "no error about certificates, keys, tokens or connections that is known in what was given"
}

func (unknownError) Hint() string {
	return "give the whole line as the log has it; kubepki verify looks at the files without any log"
}

// errNoLine is for an empty --error.
var errNoLine = errors.New("--error is empty: give an error line, or - and lines on the standard input")

func (o *explainOptions) explainErrors(ctx context.Context, s streams, args []string) error {
	if o.component != "" && !slices.Contains(explain.Components(), o.component) {
		return usagef("--component: unknown component %q: use one of %s", o.component, strings.Join(explain.Components(), ", "))
	}
	if strings.TrimSpace(o.line) == "" {
		return usageError{errNoLine}
	}
	files := len(args) > 0 || len(o.cluster.roots) > 0
	if o.cluster.at != "" && !files {
		return usagef("--at judges files: give --root or DIR")
	}
	if len(args) > 0 && len(o.cluster.roots) > 0 {
		return usagef("give the cluster's files by --root or by DIR, not by both")
	}
	in := io.Reader(strings.NewReader(o.line))
	if o.line == "-" {
		in = s.in
	}
	items, others, err := explain.Lines(in, o.component)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return unknownError{}
	}
	if files {
		if err := o.pinpoint(ctx, items, args); err != nil {
			return err
		}
	}
	answer := report.NewExplanations(items, others)
	if o.output != "text" {
		return report.Document(s.out, o.output, answer)
	}
	if others > 0 {
		fmt.Fprintf(s.err, "kubepki: %d other lines\n", others)
	}
	return answer.Text(s.out, report.Palette{On: isTerminal(s.out)})
}

// pinpoint looks at the files of the cluster as verify does.
func (o *explainOptions) pinpoint(ctx context.Context, items []*explain.Explanation, args []string) error {
	opts := check.Options{At: time.Now()}
	if o.cluster.at != "" {
		var err error
		if opts.At, err = parseTime(o.cluster.at); err != nil {
			return usagef("--at: %w", err)
		}
	}
	clusters, err := o.cluster.clusters(args)
	if err != nil {
		return err
	}
	v := verify(ctx, clusters[0], opts, nil)
	if v.err != nil {
		return v.err
	}
	for _, e := range items {
		e.Pinpoint(v.graph, v.result)
	}
	return nil
}
