package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/kubepki/kubepki/token"
)

// blanks are what may stand around a token in a file or on standard input.
const blanks = " \t\r\n"

// maxBlanks is how many bytes of blanks may stand around a token.
const maxBlanks = 64 << 10

// readSAToken reads a token from a file or, for "-", standard input, until the
// context ends. A pipe is fine, as the shell makes one for <(…). What is too long
// comes back cut, and still too long: nothing behind it can be overlooked.
func readSAToken(ctx context.Context, s streams, name string) (string, error) {
	from, called := s.in, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: does not exist", name)
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		from, called = f, name
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // a terminal or a pipe may never end
		data, err := io.ReadAll(io.LimitReader(from, token.MaxSize+maxBlanks+1))
		done <- result{data, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		return "", fmt.Errorf("reading %s: %w", called, ctx.Err())
	}
	switch {
	case r.err != nil:
		return "", fmt.Errorf("reading %s: %w", called, r.err)
	case len(r.data) > token.MaxSize+maxBlanks:
		return string(r.data), nil
	}
	return strings.Trim(string(r.data), blanks), nil
}

// notAToken tells what was given instead of a token, where that can be said.
func notAToken(text string) error {
	switch {
	case text == "":
		return advise(errors.New("there is nothing to read: no token was given"), "the command before it may have failed; give the token as a file, or on standard input")
	case len(text) > 7 && strings.EqualFold(text[:7], "Bearer "):
		return advise(errors.New("a header is no token"), "leave %q out", text[:6])
	case strings.HasPrefix(text, "-----BEGIN "):
		return advise(errors.New("this is PEM, not a token"), "kubepki show FILE tells what it holds")
	case strings.Count(text, ".") != 2:
		return advise(errors.New("this is no token of a service account: that has three parts with dots between them, and begins with eyJ"), "kubepki show FILE tells what other files hold, kubepki token is for bootstrap tokens")
	}
	return nil
}

// noToken refuses tokens as arguments, and does not repeat them: whoever lists the
// processes of the machine has seen them.
func noToken(args []string) error {
	for _, a := range args {
		if jwt.MatchString(a) && !exists(a) {
			return advise(usagef("the argument is a token, not the name of a file: whoever can list the processes of this machine has seen it"),
				"give it on standard input, as in: kubectl create token robot | kubepki sa verify -")
		}
	}
	return nil
}
