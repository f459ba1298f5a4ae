package explain

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed messages/*.txt
var messageFiles embed.FS

// message is one text of the catalogue. Its parts stand in a line in this order,
// with any text between them.
type message struct {
	text  string // as catalogued, with * for any text
	class string
	parts []string
	size  int // bytes of all parts
}

// catalogue holds all messages, first those that tell most: one that says what is
// wrong before one that says only where, and of those the longest. The files are
// embedded, so that one which does not parse is a mistake of the program; every
// test reads them.
var catalogue = sync.OnceValue(readCatalogue)

func readCatalogue() []message {
	entries, err := messageFiles.ReadDir("messages")
	if err != nil {
		panic(err)
	}
	var all []message
	for _, e := range entries {
		data, err := messageFiles.ReadFile("messages/" + e.Name())
		if err != nil {
			panic(err)
		}
		found, err := parseMessages(string(data))
		if err != nil {
			panic(fmt.Sprintf("messages/%s: %v", e.Name(), err))
		}
		all = append(all, found...)
	}
	slices.SortStableFunc(all, func(a, b message) int {
		return cmp.Or(classes[b.class].depth-classes[a.class].depth, b.size-a.size)
	})
	return all
}

// parseMessages reads sections that begin with a class in brackets, a message on
// each line; # begins a comment.
func parseMessages(data string) ([]message, error) {
	var all []message
	section := ""
	for line := range strings.Lines(data) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
			if _, known := classes[section]; !known {
				return nil, fmt.Errorf("there is no class %q", section)
			}
		case section == "":
			return nil, fmt.Errorf("%q stands before the first class", line)
		default:
			m := message{text: line, class: section}
			for part := range strings.SplitSeq(line, "*") {
				if part != "" {
					m.parts = append(m.parts, part)
					m.size += len(part)
				}
			}
			all = append(all, m)
		}
	}
	return all, nil
}

// in tells whether a text holds the message: its words, not a part of longer ones.
func (m *message) in(text string) bool {
	for rest := text; ; {
		i := strings.Index(rest, m.parts[0])
		if i < 0 {
			return false
		}
		at := len(text) - len(rest) + i
		if !within(text, at) && m.from(text[at:]) {
			return true
		}
		rest = rest[i+1:]
	}
}

// from tells whether a text that begins with the first part holds the others.
func (m *message) from(text string) bool {
	at := 0
	for _, part := range m.parts {
		i := strings.Index(text[at:], part)
		if i < 0 {
			return false
		}
		at += i + len(part)
	}
	return !within(text, at)
}

// within tells whether both neighbours of a position are letters or digits.
func within(text string, at int) bool {
	return at > 0 && at < len(text) && isWord(text[at-1]) && isWord(text[at])
}

func isWord(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// find returns the message that tells most of a text.
func find(text string) (message, bool) {
	all := catalogue()
	for i := range all {
		if all[i].in(text) {
			return all[i], true
		}
	}
	return message{}, false
}

// Messages returns the texts of the catalogue, with * for any text, in order.
func Messages() []string {
	var all []string
	for _, m := range catalogue() {
		all = append(all, m.text)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
