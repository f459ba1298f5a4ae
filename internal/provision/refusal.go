package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Refusal tells why the plan cannot be made: what stands at a path contradicts
// what is wanted, or something that is needed is not there.
type Refusal struct {
	Path  string // on this machine; empty when no single file is the cause
	Cause string
	Help  string // what the user can do; may be empty

	err error // of the disk, where there is one
}

// Error names the file and the cause.
func (r *Refusal) Error() string {
	if r.Path == "" {
		return r.Cause
	}
	return r.Path + ": " + r.Cause
}

// Unwrap returns the error of the disk, if that is the cause.
func (r *Refusal) Unwrap() error { return r.err }

// Hint returns what the user can do.
func (r *Refusal) Hint() string { return r.Help }

func refuse(path, help, format string, args ...any) error {
	return &Refusal{Path: path, Help: help, Cause: fmt.Sprintf(format, args...)}
}

// explain adds what the user can do about an error of the disk.
func explain(err error) error {
	help := ""
	switch {
	case errors.Is(err, fs.ErrPermission):
		help = "run it with the rights to write there, or point at another folder"
	case errors.Is(err, syscall.EROFS):
		help = "mount it writable, or point at another folder"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		help = "make room, or point at another folder; nothing was written"
	case errors.Is(err, fs.ErrExist):
		help = "it appeared while this ran, or is a link that leads nowhere: run it again, or move it away"
	default:
		return err
	}
	return &Refusal{Cause: err.Error(), Help: help, err: err}
}

const helpShape = "put the authority's certificate there; or, if the folder was made with other --authorities or --kubelet-authority, say the same again; or move the old file away"

const moveAway = "move it away to have it made anew, or mend it; nothing was written"

func counted(requests int) string {
	if requests == 1 {
		return "1 certificate request is"
	}
	return fmt.Sprintf("%d certificate requests are", requests)
}

// unsigned lists requests whose certificates have not come yet, and the
// certificates of authorities that are missing.
func unsigned(requests, authorities []string) error {
	var causes []string
	if len(authorities) > 0 {
		causes = append(causes, "the certificate of the authority that is to sign is missing: "+strings.Join(authorities, ", "))
	}
	if len(requests) > 0 {
		causes = append(causes, fmt.Sprintf("%s not signed yet: %s", counted(len(requests)), strings.Join(requests, ", ")))
	}
	return &Refusal{
		Cause: strings.Join(causes, "; "),
		Help:  "have each FILE.csr signed by its authority, put the certificate beside it as FILE.crt, the authority's own in its place, and run the same command again",
	}
}
