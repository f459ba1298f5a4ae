package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

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

// readInput reads a file of this machine, standard input for "-", or a pipe that
// the shell made for <(…), as far as anything of a cluster is large. It never
// blocks on a FIFO or a device. That a file cannot be read is a
// [*layout.ReadError].
func readInput(s streams, name string) ([]byte, error) {
	if name == "-" {
		return readStream(s.in, "standard input")
	}
	if pipe := inheritedPipe(name); pipe != nil {
		return readStream(pipe, name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file, err := layout.ReadFile("/", path)
	var failed *layout.ReadError
	if errors.As(err, &failed) {
		as := *failed
		as.Path = name // as the user wrote it
		return nil, &as
	}
	return file.Data, err
}

func readStream(from io.Reader, called string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, content.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", called, err)
	}
	return data, nil
}

// inheritedPipe returns the pipe that a name such as /dev/fd/63 stands for; nil
// where it is something else. It is not opened by its name: that waits for a
// writer where none is left.
func inheritedPipe(name string) *os.File {
	if name == "/dev/stdin" {
		name = "/dev/fd/0"
	}
	dir, base := filepath.Split(filepath.Clean(name))
	number, err := strconv.ParseUint(base, 10, 31)
	if err != nil || dir != "/dev/fd/" && dir != "/proc/self/fd/" {
		return nil
	}
	if info, err := os.Stat(name); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return nil
	}
	return os.NewFile(uintptr(number), name)
}

// exists tells whether anything stands at a path, be it a dangling link.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
