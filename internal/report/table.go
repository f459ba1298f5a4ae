package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"sigs.k8s.io/yaml"
)

// APIVersion is the version of all machine output.
const APIVersion = "kubepki.dev/v1alpha1"

// Table prints rows below a head in the manner of kubectl: no lines, two
// spaces between columns.
func Table(w io.Writer, head []string, rows [][]string) error {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Box = table.BoxStyle{PaddingRight: "  "}
	style.Options = table.OptionsNoBordersAndSeparators
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	t.AppendHeader(row(head))
	for _, r := range rows {
		t.AppendRow(row(r))
	}
	_, err := fmt.Fprintln(w, t.Render())
	return err
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}

// visible escapes what [Plain] would take out of a text: it is valid within the
// strings of JSON alone, and there as an escape too.
func visible(data []byte) []byte {
	if !bytes.ContainsFunc(data, unseen) {
		return data
	}
	var b bytes.Buffer
	for _, r := range string(data) {
		if unseen(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// Document prints a value as one JSON or YAML document, which can be shown on a
// terminal: characters that cannot be seen are escaped.
func Document(w io.Writer, format string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	data = append(visible(data), '\n')
	if format == "yaml" {
		text, err := yaml.JSONToYAML(data)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		// Texts without quotes have no escapes. JSON is YAML too.
		if !bytes.ContainsFunc(text, unseen) {
			data = text
		}
	}
	_, err = w.Write(data)
	return err
}
