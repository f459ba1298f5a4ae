package resident

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fileBacked is how much of this process's memory is that of files, in KiB.
func fileBacked(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err) // not Linux
	}
	_, rest, _ := strings.Cut(string(data), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPagesAreLetGoOfAtTheStartOfTheAgentAlone(t *testing.T) {
	for _, args := range [][]string{nil, {"kubepki"}, {"kubepki", "verify"}, {"kubepki", "verify", "agent"}} {
		before := fileBacked(t)
		atStart(args)()
		if after := fileBacked(t); after < before/2 {
			t.Errorf("%v: %d KiB became %d", args, before, after)
		}
	}
	before := fileBacked(t)
	end := atStart([]string{"kubepki", "agent", "--watch"})
	time.Sleep(3 * startStep)
	end()
	if after := fileBacked(t); after >= before {
		t.Errorf("the agent: %d KiB became %d", before, after)
	}
}
