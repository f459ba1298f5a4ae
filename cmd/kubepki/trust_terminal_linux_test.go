package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a terminal and the other end of it.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine gives no terminal: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

// On a terminal it is asked, and only yes is yes.
func TestTheAnswerOnATerminal(t *testing.T) {
	for answer, yes := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "yep\n": false} {
		ours, theirs := terminal(t)
		if _, err := io.WriteString(ours, answer); err != nil {
			t.Fatal(err)
		}
		var talk bytes.Buffer
		err := (&trustChangeFlags{}).confirm(streams{in: theirs, err: &talk})
		if (err == nil) != yes || !strings.Contains(talk.String(), "[y/N]") {
			t.Errorf("%q: %v after %q", answer, err, talk.String())
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, in := range map[string]io.Reader{"a pipe": strings.NewReader("y\n"), "the null device": null} {
		if err := (&trustChangeFlags{}).confirm(streams{in: in, err: io.Discard}); err == nil || !strings.Contains(err.Error(), "nobody is here to ask") {
			t.Errorf("%s: %v", name, err)
		}
		if err := (&trustChangeFlags{yes: true}).confirm(streams{in: in, err: io.Discard}); err != nil {
			t.Errorf("%s, with --yes: %v", name, err)
		}
	}
}
