package config

import (
	"fmt"
	"strings"
)

// Error tells which field of a configuration is wrong.
type Error struct {
	File  string // as the user named it; empty for flags
	Field string // path of the field, or a flag; empty for the whole file
	Cause string
	Help  string // what the user can do; may be empty
}

// Error returns "file: field: cause".
func (e *Error) Error() string {
	var parts []string
	for _, s := range []string{e.File, e.Field, e.Cause} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Hint returns what the user can do, at least where the fields are described.
func (e *Error) Hint() string {
	switch {
	case e.Help != "":
		return e.Help
	case strings.HasPrefix(e.Field, "--"):
		return "kubepki init --help describes the flags"
	}
	return "docs/configuration.md describes the fields"
}

func wrong(field, format string, args ...any) error {
	return &Error{Field: field, Cause: fmt.Sprintf(format, args...)}
}
