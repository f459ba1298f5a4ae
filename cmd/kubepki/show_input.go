package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/layout"
)

// advised is an error with a remedy.
type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

// Hint returns what the user can do.
func (e *advised) Hint() string { return e.hint }

func advise(err error, format string, args ...any) error {
	return &advised{err, fmt.Sprintf(format, args...)}
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return name != "-" && err == nil && info.IsDir()
}

// readInput reads a file of this machine, or standard input for "-", as far as
// anything of a cluster is large. It never blocks on a FIFO or a device.
func readInput(s streams, name string) ([]byte, error) {
	if name == "-" {
		data, err := io.ReadAll(io.LimitReader(s.in, content.MaxSize+1))
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return data, nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file, err := layout.ReadFile("/", path)
	var failed *layout.ReadError
	if errors.As(err, &failed) {
		// As the user wrote the name.
		return nil, fmt.Errorf("%s: %s", name, failed.Reason)
	}
	return file.Data, err
}

// exists tells whether anything stands at a path, be it a dangling link.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
