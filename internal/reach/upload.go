package reach

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

// Program is a program of this machine that is run on others: what is installed there
// where it is byte for byte the same, else a copy, in a folder of its own that is
// removed as soon as the program runs.
type Program struct {
	Name string // of the file, and of what may be installed
	Path string
	// Remove is the argument that makes the program remove its own folder first.
	Remove string

	once   sync.Once
	packed []byte
	hash   string
	err    error
}

// load packs the program, once for all machines.
func (p *Program) load() error {
	p.once.Do(func() {
		data, err := os.ReadFile(p.Path)
		if err != nil {
			p.err = err
			return
		}
		sum := sha256.Sum256(data)
		p.hash = hex.EncodeToString(sum[:])
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is a good one
		_, err = w.Write(data)
		p.packed, p.err = b.Bytes(), errors.Join(err, w.Close())
		p.packed = b.Bytes()
	})
	return p.err
}

// Options tell how a program is run.
type Options struct {
	Sudo bool
	// Command names what is installed on the machine, and is not copied; "": as
	// [Program] says.
	Command string
	Args    []string
}

// Run starts the program on a machine. The context bounds what comes before it runs.
func (p *Program) Run(ctx context.Context, h *Host, o Options) (*Process, error) {
	stop := context.AfterFunc(ctx, h.Close)
	defer stop()
	process, err := p.run(h, o)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", h.Target.Name, context.Cause(ctx))
	}
	return process, err
}

func (p *Program) run(h *Host, o Options) (*Process, error) {
	command, args := o.Command, o.Args
	if command == "" {
		found, err := p.find(h)
		if err != nil {
			return nil, err
		}
		if command = found; command == "" {
			dir, err := p.copy(h)
			if err != nil {
				return nil, err
			}
			command, args = dir+"/"+p.Name, append(args[:len(args):len(args)], p.Remove)
		}
	}
	words := []string{quote(command)}
	if o.Sudo {
		words = []string{"sudo", "-n", "--", quote(command)}
	}
	for _, a := range args {
		words = append(words, quote(a))
	}
	return h.Start(strings.Join(words, " "))
}

// find returns the path of the same program that is installed on the machine; empty
// where it has to be copied.
func (p *Program) find(h *Host) (string, error) {
	if err := p.load(); err != nil {
		return "", err
	}
	answer, err := h.answer(`uname -s; uname -m; f=$(command -v `+p.Name+`) && sha256sum "$f" | cut -d" " -f1 && echo "$f"; true`, nil)
	if err != nil {
		return "", err
	}
	lines := lastLines(answer)
	for i := range lines {
		if i+3 < len(lines) && lines[i+2] == p.hash && strings.HasPrefix(lines[i+3], "/") {
			return lines[i+3], nil
		}
	}
	want := strings.ToLower(runtime.GOOS)
	for i, l := range lines[:max(0, len(lines)-1)] {
		if strings.ToLower(l) == want && architectures[lines[i+1]] == runtime.GOARCH {
			return "", nil
		}
	}
	return "", &Error{fmt.Errorf("%s: is no %s machine of %s, and %s is not installed there as it is here", h.Target.Name, runtime.GOOS, runtime.GOARCH, p.Name),
		"install this version for that machine, and name it with --ssh-command"}
}

// architectures are what uname -m calls those of Go.
var architectures = map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}

// lastLines are the lines of an answer: what a shell's profile may say comes before.
func lastLines(answer string) []string {
	return strings.FieldsFunc(answer, func(r rune) bool { return r == '\n' || r == '\r' })
}

// folderOf is the form of the folder that the script below makes.
var folderOf = regexp.MustCompile(`^(/[A-Za-z0-9_./-]*)?/\.kubepki-ssh-[A-Za-z0-9]{10}$`)

// script makes a folder in which programs may be run and unpacks one into it. What a
// run that was killed left there an hour ago goes away. A copy that did not come whole
// is removed at once.
const script = `umask 077
for b in "${TMPDIR:-/tmp}" /var/tmp "$HOME"; do
	d=$(mktemp -d "$b/.kubepki-ssh-XXXXXXXXXX" 2>/dev/null) || continue
	find "$b" -maxdepth 1 -name ".kubepki-ssh-??????????" -user "$(id -un)" -mmin +60 -exec rm -rf {} + 2>/dev/null
	printf "#!/bin/sh\n" >"$d/NAME" && chmod 700 "$d/NAME" && "$d/NAME" 2>/dev/null && break
	rm -rf "$d"; d=
done
[ -n "$d" ] || { echo "no folder in which programs may be run" >&2; exit 1; }
trap "rm -rf \"$d\"" HUP INT TERM
if gzip -dc >"$d/NAME" && sum=$(sha256sum "$d/NAME"); then
	[ "${sum%% *}" = "HASH" ] && echo "$d" && exit 0
	echo "the copy did not come whole" >&2
fi
rm -rf "$d"; exit 1`

func (p *Program) copy(h *Host) (string, error) {
	made, err := h.answer(strings.NewReplacer("NAME", p.Name, "HASH", p.hash).Replace(script), bytes.NewReader(p.packed))
	if err != nil {
		return "", &Error{fmt.Errorf("copying %s: %w", p.Name, err), "or install it there, and name it with --ssh-command"}
	}
	lines := lastLines(made)
	if len(lines) == 0 || !folderOf.MatchString(lines[len(lines)-1]) {
		return "", fmt.Errorf("%s: copying %s: the machine names no folder", h.Target.Name, p.Name)
	}
	return lines[len(lines)-1], nil
}
