package signer

import (
	"crypto/x509"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/reload"
)

// Told is called when what signs has changed: with the certificate that signs
// from now on, or with the error for which what was before goes on to sign. The
// same error is told once. It may be called by any goroutine that asks for the
// authority, but by one at a time, and should return soon.
type Told func(*x509.Certificate, error)

// Reloaded is a [Source] that reads its files again when they change, as
// [reload.Files] does.
type Reloaded struct {
	files *reload.Files[issue.Authority]
}

func newReloaded(paths []string, build func([][]byte) (issue.Authority, error), told Told) (*Reloaded, error) {
	usable := func(contents [][]byte) (issue.Authority, error) {
		a, err := build(contents)
		if err != nil {
			return a, err
		}
		return a, a.Usable(time.Now())
	}
	files, err := reload.New(paths, usable, func(a issue.Authority, err error) {
		if told != nil {
			told(a.Certificate, err)
		}
	})
	if err != nil {
		return nil, err
	}
	return &Reloaded{files}, nil
}

// Authority returns what signs now. It may be called by several goroutines at
// once, and its result must not be changed. The error is always nil: once there
// was an authority, there is one.
func (r *Reloaded) Authority() (issue.Authority, error) { return r.files.Get(), nil }
