package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/layout"
)

// serialFile returns openssl's file of the last serial beside an authority's
// certificate, empty when there is none.
func serialFile(certificate string) string {
	path := strings.TrimSuffix(certificate, filepath.Ext(certificate)) + ".srl"
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// takeSerial counts a serial file on by one, as openssl x509 -CAserial does,
// and returns the new number. The file is replaced in one step and under the
// folder's lock, before anything is signed: a number may be lost, never used
// twice.
func takeSerial(ctx context.Context, path string) (next *big.Int, err error) {
	lock, err := begin(ctx, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Rollback()) }()
	data, err := readInput(streams{}, path)
	if err != nil {
		return nil, err
	}
	last, ok := new(big.Int).SetString(strings.TrimSpace(string(data)), 16)
	if !ok || last.Sign() < 0 || last.BitLen() > 158 {
		// 20 octets at most (RFC 5280 section 4.1.2.2).
		return nil, fmt.Errorf("%s: is no serial number in hexadecimal", path)
	}
	next = last.Add(last, big.NewInt(1))
	digits := fmt.Sprintf("%X", next.Bytes())
	if err := replaceFile(path, []byte(digits+"\n")); err != nil {
		return nil, fmt.Errorf("counting on %s: %w", path, err)
	}
	return next, nil
}

// begin starts a transaction, and waits for another that is short: scripts
// issue several certificates at once.
func begin(ctx context.Context, dir string) (t *layout.Transaction, err error) {
	err = whileBusy(ctx, func() error {
		t, err = layout.Begin(dir)
		return err
	})
	return t, err
}

// patience is how long [whileBusy] waits for another kubepki.
const patience = 10 * time.Second

// whileBusy does again what fails because another kubepki writes there, until
// its patience or the context ends.
func whileBusy(ctx context.Context, do func() error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := do()
		if !errors.As(err, new(*layout.BusyError)) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-limited.Done():
			if ctx.Err() != nil {
				err = fmt.Errorf("%w: waiting for it: %w", err, context.Cause(ctx))
			}
			return err
		}
	}
}

// replaceFile puts new content in the place of a file, in one step.
func replaceFile(path string, data []byte) (err error) {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".kubepki-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
