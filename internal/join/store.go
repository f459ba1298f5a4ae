package join

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// store is a folder with the dated files of one client, the link to the newest
// and the key of a request that is under way. Names and contents are those of
// client-go's FileStore (util/certificate/certificate_store.go) and of the
// kubelet (k/k pkg/kubelet/certificate/bootstrap/bootstrap.go).
type store struct {
	disk   *disk
	folder string // absolute path on the node
	prefix string // kubelet-client
}

const dateLayout = "2006-01-02-15-04-05"

func (s store) file(qualifier string) string {
	return path.Join(s.folder, s.prefix+"-"+qualifier+".pem")
}

// current is the link to the newest file.
func (s store) current() string { return s.file("current") }

// pending holds the key of a request until its certificate is in place. For a
// kubelet, this is its own file.
func (s store) pending() string { return path.Join(s.folder, s.prefix+".key.tmp") }

// pendingKey returns the key to ask with: that of an interrupted run, or a new
// one, which is durable on the disk before it is returned. The key inUse is not
// asked with again.
func (s store) pendingKey(inUse crypto.PublicKey) (key crypto.Signer, fresh bool, err error) {
	data, err := s.disk.read(s.pending())
	switch {
	case err == nil:
		key, err := issue.ParsePrivateKey(data)
		if err == nil && issue.CheckPublicKey(key.Public()) == nil && !trust.SameKey(key.Public(), inUse) {
			return key, false, nil
		}
		// Torn by a loss of power, or left from the certificate that is in use.
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	if key, err = issue.GenerateKey(issue.ECDSAP256); err != nil {
		return nil, false, err
	}
	if data, err = issue.EncodePrivateKey(key); err != nil {
		return nil, false, err
	}
	return key, true, s.disk.put(s.pending(), data, 0o600)
}

// forgetPending removes the key of a request when it is in use.
func (s store) forgetPending(inUse crypto.PublicKey) error {
	data, err := s.disk.read(s.pending())
	if err != nil {
		return nil //nolint:nilerr // nothing that could be in use
	}
	if key, err := issue.ParsePrivateKey(data); err != nil || !trust.SameKey(key.Public(), inUse) {
		return nil //nolint:nilerr // of a request that is under way
	}
	return s.disk.remove(s.pending())
}

// load reads what the link leads to.
func (s store) load() (*pair, error) {
	data, err := s.disk.read(s.current())
	if err != nil {
		return nil, err
	}
	p, err := parsePair(data, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.disk.host(s.current()), err)
	}
	return p, nil
}

// install writes a pair into a file of its own and moves the link to it. At
// every moment the link leads to a whole file.
func (s store) install(p *pair, now time.Time) error {
	data, err := p.encode()
	if err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	file, err := s.write(data, now)
	if err != nil {
		return err
	}
	return s.link(file)
}

// write puts the text into a dated file, unless an interrupted run did.
func (s store) write(data []byte, now time.Time) (string, error) {
	names, err := s.disk.list(s.folder)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if !s.isDated(name) {
			continue
		}
		if have, err := s.disk.read(path.Join(s.folder, name)); err == nil && bytes.Equal(have, data) {
			return path.Join(s.folder, name), nil
		}
	}
	file := s.file(now.Format(dateLayout)) // in local time, as client-go
	for s.disk.exists(file) {
		now = now.Add(time.Second)
		file = s.file(now.Format(dateLayout))
	}
	return file, s.disk.put(file, data, 0o600)
}

func (s store) isDated(name string) bool {
	date, ours := strings.CutPrefix(strings.TrimSuffix(name, ".pem"), s.prefix+"-")
	_, err := time.Parse(dateLayout, date)
	return ours && err == nil
}

// link replaces the link in one rename. The name that it has before is the one
// that client-go finishes when it finds no current link.
func (s store) link(file string) error {
	folder, _, err := layout.Follow(s.disk.dir, s.folder)
	if err != nil {
		return err
	}
	current, updated := s.current(), s.file("updated")
	for _, name := range []string{current, updated} {
		if info, err := s.disk.lstat(name); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("%s is no symbolic link: move it away, the kubelet would refuse it too", s.disk.host(name))
		}
	}
	to := s.disk.to
	err = s.disk.removed(path.Join(folder, path.Base(updated)))
	if err == nil {
		err = to.Symlink(file, path.Join(folder, path.Base(updated)))
	}
	if err == nil {
		err = to.Rename(path.Join(folder, path.Base(updated)), path.Join(folder, path.Base(current)))
	}
	if err == nil {
		err = to.Sync(folder)
	}
	return s.disk.failed("linking", current, err)
}

// sweep removes what a killed run was writing. The lock is held, so it belongs
// to nobody.
func (s store) sweep() error {
	names, err := s.disk.list(s.folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		if isTemporary(name) && strings.HasPrefix(name, tempPrefix+s.prefix) {
			if err := s.disk.remove(path.Join(s.folder, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
