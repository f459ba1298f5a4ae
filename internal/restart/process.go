package restart

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// life is one life of a process, container or unit: none of another one is equal,
// though its number may be used again.
type life string

// livesOf are the lives of the processes of a component, by their numbers. Where
// some of them have the flags that are written for it, it is these alone: another
// program of that name may run on the machine.
func livesOf(procfs, component string, written map[string][]string) map[life]int {
	all, as := map[life]int{}, map[life]int{}
	for _, p := range layout.Running(procfs) {
		if p.Component != component {
			continue
		}
		began, err := startOf(procfs, p.PID)
		if err != nil {
			continue // it has ended
		}
		l := life(fmt.Sprintf("process %d of %s", p.PID, began))
		if all[l] = p.PID; sameFlags(&p, written) {
			as[l] = p.PID
		}
	}
	if len(as) > 0 {
		return as
	}
	return all
}

func sameFlags(p *trust.Process, written map[string][]string) bool {
	return len(written) > 0 && maps.EqualFunc(p.Flags, written, slices.Equal[[]string])
}

// startOf is when a process began, in ticks since the machine did (man proc_pid_stat,
// field 22).
func startOf(procfs string, pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join(procfs, strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The second field, in brackets, is the program's name, which may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || string(fields[0]) == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return string(fields[19]), nil
}

// ticks of a second: USER_HZ, which is the same on every machine that Kubernetes runs on
// (man 5 proc_pid_stat).
const ticks = 100

// BeganSince tells whether a process of a component runs, and none of them since before a
// moment. One that may have begun within a second of it has not: it may have read what was
// there before.
func (m *Machine) BeganSince(component string, at time.Time) bool {
	up, err := os.ReadFile(filepath.Join(m.Procfs, "uptime"))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(up), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return false
	}
	booted := time.Now().Add(-time.Duration(seconds * float64(time.Second)))
	any := false
	for _, p := range layout.Running(m.Procfs) {
		if p.Component != component {
			continue
		}
		text, err := startOf(m.Procfs, p.PID)
		if err != nil {
			continue // it has ended
		}
		began, err := strconv.ParseInt(text, 10, 64)
		if err != nil || booted.Add(time.Duration(began)*time.Second/ticks).Before(at.Add(time.Second)) {
			return false
		}
		any = true
	}
	return any
}
