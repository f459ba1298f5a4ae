//go:build linux

package main

import (
	"bufio"
	"cmp"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// print writes the table and what it was measured on.
func (b *bench) print(w io.Writer) error {
	machine, err := machine()
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(filepath.Join(b.build, "kubepki"))
	if err != nil {
		return fmt.Errorf("read how kubepki was built: %w", err)
	}
	fmt.Fprintf(w, "Measured on %s: %s; kubepki built with %s; kubeadm is v1.37.2, built from its module.\n"+
		"Again: `lab/build.sh && cd lab && go run ./cmd/bench -pairs %d -folders %d -only %s`.\n\n",
		time.Now().UTC().Format(time.DateOnly), machine, info.GoVersion, b.pairs, b.folders, b.only)
	fmt.Fprintln(w, "| what | wanted | measured (median) |\n|---|---|---|")
	for _, r := range b.rows {
		fmt.Fprintf(w, "| %s | %s | %s |\n", r.what, r.wanted, r.result)
	}
	return nil
}

// machine describes processor, cores, memory and kernel.
func machine() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's version: %w", err)
	}
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return "", fmt.Errorf("ask for the size of the memory: %w", err)
	}
	gib := float64(memory.Totalram) * float64(memory.Unit) / (1 << 30)
	release, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	return fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s", processor(), runtime.NumCPU(), gib, release), nil
}

// processor is the model's name, or the architecture where it is not told.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return cmp.Or(strings.TrimSpace(value), runtime.GOARCH)
		}
	}
	return runtime.GOARCH
}
