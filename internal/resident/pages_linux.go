package resident

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// DropProgram unmaps the pages of this process's own program that cannot be written to
// and never were: they are the file's, and the next use maps them again from the kernel's
// cache. It may be called at any time, from any goroutine.
func DropProgram() {
	for _, m := range program() {
		_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, m[0], m[1]-m[0], syscall.MADV_DONTNEED) // what fails stays mapped
	}
}

// program are the mappings that are let go of. They are looked for once, which costs more
// than to let go of them: a linker writes before a program starts, and what a debugger
// writes later it may lose.
var program = sync.OnceValue(func() (all [][2]uintptr) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer f.Close()
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
			all = all[:len(all)-1] // somebody wrote to it
			ours = false
		}
	}
	return all
})

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
