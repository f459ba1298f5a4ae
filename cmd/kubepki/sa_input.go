package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kubepki/kubepki/token"
)

// blanks are what may stand around a token in a file or on standard input.
const blanks = " \t\r\n"

// maxBlanks is how many bytes of blanks may stand around a token.
const maxBlanks = 64 << 10

// readSAToken reads a token from a file or, for "-", standard input. A pipe is
// fine, as the shell makes one for <(…). What is too long comes back cut, and
// still too long.
func readSAToken(s streams, name string) (string, error) {
	from, called := s.in, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", notAToken(name, err)
		}
		defer f.Close()
		from, called = f, name
	}
	data, err := io.ReadAll(io.LimitReader(from, token.MaxSize+maxBlanks+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", called, err)
	}
	return strings.Trim(string(data), blanks), nil
}

// notAToken does not repeat a name that may be a token: whoever can list
// processes has seen it.
func notAToken(name string, err error) error {
	if strings.Count(name, ".") == 2 && strings.HasPrefix(name, "eyJ") {
		return advise(usagef("the argument is a token, not the name of a file: whoever can list the processes of this machine has seen it"),
			"give it on standard input: … | kubepki sa verify -")
	}
	return err
}
