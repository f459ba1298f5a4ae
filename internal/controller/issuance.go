package controller

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/trust"
)

// IssuanceLog is a file with one line of JSON for each certificate that was
// signed. A line is there before anybody can have the certificate; it is there
// too where the API server then did not take it. Lines survive the end of the
// process as soon as they are written, and a power cut within a second. It may
// be used by several goroutines.
type IssuanceLog struct {
	path string

	mu    sync.Mutex
	file  *os.File
	dirty bool
}

// Issuance is a line of the log.
type Issuance struct {
	Time       time.Time `json:"time"`
	Name       string    `json:"name"` // of the CertificateSigningRequest
	UID        string    `json:"uid"`
	SignerName string    `json:"signerName"`
	Requester  string    `json:"requester"`
	CommonName string    `json:"commonName"`
	Serial     string    `json:"serial"` // hexadecimal, as openssl prints it
	NotAfter   time.Time `json:"notAfter"`
	// Key is the SHA-256 sum of the SubjectPublicKeyInfo, hexadecimal.
	Key string `json:"key"`
}

// OpenIssuanceLog opens the file, or makes it, to append to it.
func OpenIssuanceLog(path string) (*IssuanceLog, error) {
	l := &IssuanceLog{path: path}
	return l, l.Reopen()
}

// Reopen opens the file of that name anew: it may have been moved away.
func (l *IssuanceLog) Reopen() error {
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("issuance log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.file
	l.file = file
	if old == nil {
		return nil
	}
	if err := old.Sync(); err != nil {
		return fmt.Errorf("issuance log: %w", err)
	}
	return old.Close()
}

// Run makes the lines durable each second until the context ends. It is a
// [Loop].
func (l *IssuanceLog) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.Sync()
		case <-ticker.C:
			if err := l.Sync(); err != nil {
				return err
			}
		}
	}
}

// Sync makes the lines durable that have been written.
func (l *IssuanceLog) Sync() error {
	l.mu.Lock()
	file, dirty := l.file, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // Reopen has synced what it closed
		return fmt.Errorf("issuance log: %w", err)
	}
	return nil
}

// append writes a line; on a nil log it does nothing.
func (l *IssuanceLog) append(r csr.Request, it *item, s signature) error {
	if l == nil {
		return nil
	}
	line, err := json.Marshal(Issuance{
		Time: time.Now().UTC(), Name: r.Name, UID: r.UID, SignerName: r.SignerName, Requester: r.Username,
		CommonName: it.asked.commonName, Serial: trust.SerialText(s.leaf.serial), NotAfter: s.leaf.notAfter, Key: hex.EncodeToString(it.asked.key[:]),
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	_, err = l.file.Write(append(line, '\n'))
	return err
}
