package yamldoc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kubepki/kubepki/internal/yamldoc"
)

func ExampleSingle() {
	fmt.Println(yamldoc.Single([]byte("a: 1\n")))
	fmt.Println(yamldoc.Single([]byte("a: 1\n...\na: 2\n")))
	// Output:
	// <nil>
	// more than one YAML document: something stands behind the end of the first
}

func TestSingle(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		more bool
	}{
		"nothing":                    {"", false},
		"a comment":                  {"# a\n", false},
		"a document":                 {"a: 1\n", false},
		"one between its marks":      {"--- # first\na: 1\n...\n# end\n", false},
		"two at hyphens":             {"a: 1\n---\na: 2\n", true},
		"two at dots":                {"a: 1\n...\na: 2\n", true},
		"two at carriage returns":    {"a: 1\r---\ra: 2\r", true},
		"two at Unicode's line ends": {"a: 1\u2028---\u2028a: 2\n", true},
		"two objects in flow style":  {"{a: 1}\n{a: 2}\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := yamldoc.Single([]byte(row.text)); errors.Is(err, yamldoc.ErrMore) != row.more || err != nil && !row.more {
				t.Errorf("got %v, want more than one: %t", err, row.more)
			}
		})
	}
	if yamldoc.Single([]byte("a: 1\n...\n%%%\n")) == nil {
		t.Error("what is no YAML behind a document is passed over")
	}
}
