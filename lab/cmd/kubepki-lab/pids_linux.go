package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// outsidePIDs puts the numbers that the lab's processes have outside of it into a
// status, so that they can be looked at and ended: inside they are numbered anew.
func outsidePIDs(first int, status *supervisor.Status) {
	numbers := map[int]int{} // inside → outside
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		namespace = "none" // then no number is better than a wrong one
	}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, process := range processes {
		if own, err := os.Readlink(process + "/ns/pid"); err != nil || own != namespace {
			continue
		}
		if outside, err := strconv.Atoi(filepath.Base(process)); err == nil {
			numbers[insidePID(process)] = outside
		}
	}
	for i, c := range status.Components {
		status.Components[i].PID = numbers[c.PID]
	}
}

// insidePID is the number of a process in its own namespace: the last one of
// NSpid in proc_pid_status(5); 0 if there is none.
func insidePID(process string) int {
	data, err := os.ReadFile(process + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			number, _ := strconv.Atoi(fields[len(fields)-1]) // the kernel writes numbers
			return number
		}
	}
	return 0
}
