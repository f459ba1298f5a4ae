package main

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestKeyProgress(t *testing.T) {
	var out bytes.Buffer
	p := &keyProgress{w: &out, total: 4}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(p.step)
	}
	wait.Wait()
	p.done()
	lines := strings.Split(out.String(), "\r")
	want := "making keys [" + strings.Repeat("#", 30) + "] 4/4"
	if len(lines) != 6 || lines[4] != want || !strings.HasSuffix(out.String(), "\x1b[K") {
		t.Errorf("printed %q, want four steps up to %q and a clear line", lines, want)
	}
	out.Reset()
	quiet := newKeyProgress(&out, 4) // a buffer is no terminal
	quiet.step()
	quiet.done()
	if out.Len() > 0 {
		t.Errorf("printed %q where there is no terminal", out.String())
	}
}

func TestLives(t *testing.T) {
	for text, hours := range map[string]float64{"8760h": 8760, "365d": 8760, "90m": 1.5, "1.5d": 36} {
		if d, err := parseLife("--validity", text); err != nil || d.Hours() != hours {
			t.Errorf("%q is %v, %v; want %v hours", text, d, err, hours)
		}
	}
	for _, text := range []string{"", "1", "1y", "-1h", "-1d", "0d", "0h", "99999d", "99999999d", "1h1d"} {
		if d, err := parseLife("--validity", text); err == nil || !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%q passed as %v, or its error does not quote it: %v", text, d, err)
		}
	}
}
