package cri

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// lineLimit is the length of a line, in bytes, from which on it is written in
// parts, as containerd does.
const lineLimit = 16 << 10

// logFile is the log of a container, in the format that the kubelet reads: each
// line has a time, the name of a stream, and F, or P for a part of a line (k/k
// staging/src/k8s.io/cri-client/pkg/logs/logs.go).
type logFile struct {
	path string

	mu      sync.Mutex
	file    *os.File // nil: closed
	streams []*logStream
}

func newLog(path string) *logFile { return &logFile{path: path} }

// open opens the file that has the log's name now.
func (l *logFile) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close() // each line was written at once: there is nothing to lose
	}
	l.file = file
	return nil
}

// close writes what is left of the last lines and closes the file.
func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		if len(s.rest) > 0 {
			l.write(s.name, "F", s.rest)
			s.rest = nil
		}
	}
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

// line writes a line.
func (l *logFile) line(stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(stream, "F", []byte(text))
}

// write writes a line; mu must be held. A log that cannot be written must not
// stop the container, and there is nobody to tell.
func (l *logFile) write(stream, tag string, text []byte) {
	if l.file == nil {
		return
	}
	_, _ = fmt.Fprintf(l.file, "%s %s %s %s\n", time.Now().Format(time.RFC3339Nano), stream, tag, text)
}

// stream returns a writer of one of the container's streams.
func (l *logFile) stream(name string) *logStream {
	s := &logStream{log: l, name: name}
	l.streams = append(l.streams, s)
	return s
}

// logStream cuts output into lines.
type logStream struct {
	log  *logFile
	name string
	rest []byte // of a line that has not ended
}

func (s *logStream) Write(p []byte) (int, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		line, rest, found := bytes.Cut(s.rest, []byte("\n"))
		switch {
		case len(line) > lineLimit || !found && len(line) == lineLimit:
			s.log.write(s.name, "P", line[:lineLimit])
			s.rest = s.rest[lineLimit:]
		case found:
			s.log.write(s.name, "F", line)
			s.rest = rest
		default:
			return len(p), nil
		}
	}
}
