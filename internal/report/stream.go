package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"sigs.k8s.io/yaml"
)

// Columns prints a table of which only a part is known at a time: a column is as
// wide as what was in it so far.
type Columns struct {
	w      io.Writer
	widths []int
}

// NewColumns prints nothing yet: the head is the first row.
func NewColumns(w io.Writer) *Columns { return &Columns{w: w} }

// Print prints rows, none of which may have more cells than the first ever had.
func (c *Columns) Print(rows ...[]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], text.StringWidthWithoutEscSequences(cell))
		}
	}
	b := bufio.NewWriter(c.w)
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(text.Pad(cell, c.widths[i]+2, ' '))
		}
		fmt.Fprintln(b, strings.TrimRight(line.String(), " "))
	}
	return b.Flush()
}

// Stream prints a list as one JSON or YAML document, item by item. What it
// prints is what [Document] would print of the whole.
type Stream struct {
	w    io.Writer
	yaml bool
	kind string
	any  bool // an item has been printed
}

// NewStream prints nothing yet.
func NewStream(w io.Writer, format, kind string) *Stream {
	return &Stream{w: w, yaml: format == "yaml", kind: kind}
}

// Add prints one more item.
func (s *Stream) Add(item any) error {
	data, err := json.MarshalIndent(item, "    ", "  ")
	if err == nil && s.yaml {
		data, err = yaml.Marshal([]any{item})
	}
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	head := ""
	switch {
	case !s.any && s.yaml:
		head = "apiVersion: " + APIVersion + "\nitems:\n"
	case !s.any:
		head = fmt.Sprintf("{\n  \"apiVersion\": %q,\n  \"kind\": %q,\n  \"items\": [\n    ", APIVersion, s.kind)
	case !s.yaml:
		head = ",\n    "
	}
	s.any = true
	_, err = fmt.Fprintf(s.w, "%s%s", head, data)
	return err
}

// Close prints what ends the document, or that of an empty list.
func (s *Stream) Close() error {
	var err error
	switch {
	case s.yaml && s.any:
		_, err = fmt.Fprintf(s.w, "kind: %s\n", s.kind)
	case s.yaml:
		_, err = fmt.Fprintf(s.w, "apiVersion: %s\nitems: []\nkind: %s\n", APIVersion, s.kind)
	case s.any:
		_, err = fmt.Fprint(s.w, "\n  ]\n}\n")
	default:
		_, err = fmt.Fprintf(s.w, "{\n  \"apiVersion\": %q,\n  \"kind\": %q,\n  \"items\": []\n}\n", APIVersion, s.kind)
	}
	return err
}
