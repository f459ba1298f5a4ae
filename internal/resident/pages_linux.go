package resident

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// DropProgram unmaps the pages of this process's own program that cannot be written to
// and never were: they are the file's, and the next use maps them again from the kernel's
// cache. It may be called at any time, from any goroutine.
func DropProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	var all [][2]uintptr
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) > 1 && !strings.HasSuffix(fields[0], ":"): // the head of a mapping
			from, to, ok := spanOf(fields[0])
			ours = ok && len(fields) == 6 && fields[5] == program && !strings.Contains(fields[1], "w")
			if ours {
				all = append(all, [2]uintptr{from, to})
			}
		case ours && fields[0] == "Anonymous:" && fields[1] != "0":
			all = all[:len(all)-1] // somebody wrote to it: a linker, a debugger
			ours = false
		}
	}
	for _, m := range all {
		_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, m[0], m[1]-m[0], syscall.MADV_DONTNEED) // what fails stays mapped
	}
}

// spanOf reads FROM-TO, in hexadecimal.
func spanOf(text string) (from, to uintptr, ok bool) {
	a, b, _ := strings.Cut(text, "-")
	x, errA := strconv.ParseUint(a, 16, 64)
	y, errB := strconv.ParseUint(b, 16, 64)
	return uintptr(x), uintptr(y), errA == nil && errB == nil && y > x
}

// ofFiles is how much of this process's memory is that of files, in KiB; 0: not known.
func ofFiles() int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 3 {
		return 0
	}
	pages, _ := strconv.Atoi(fields[2]) // 0: not known
	return pages * (os.Getpagesize() >> 10)
}
