package main

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/explain"
)

// What the pages on findings tell to type exists, with its flags.
func TestCommandsOfPagesExist(t *testing.T) {
	named := regexp.MustCompile("(?m)(?:`|^\\$ |\\| |, )(kubepki [a-z][^`|\n]*)")
	flag := regexp.MustCompile(`--[a-z-]+`)
	seen := 0
	for _, id := range explain.IDs() {
		text, err := explain.Markdown(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])[1:]
			root := newRootCommand(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
			c, rest, err := root.Find(words)
			if err != nil || c == root {
				t.Errorf("%s: %q is no command: %v", id, m[1], err)
				continue
			}
			// Groups of commands do nothing themselves.
			if c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && c.RunE == nil {
				t.Errorf("%s: %q: %s has no command %s", id, m[1], c.CommandPath(), rest[0])
			}
			for _, f := range flag.FindAllString(m[1], -1) {
				if c.Flags().Lookup(strings.TrimPrefix(f, "--")) == nil && c.InheritedFlags().Lookup(strings.TrimPrefix(f, "--")) == nil {
					t.Errorf("%s: %q: there is no %s", id, m[1], f)
				}
			}
			seen++
		}
	}
	if seen < 50 {
		t.Errorf("only %d commands were found", seen)
	}
}
