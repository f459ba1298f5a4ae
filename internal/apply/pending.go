package apply

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// PendingFolder is where keys and requests wait on a node for certificates that are
// signed elsewhere, each below it by the whole path of the certificate or kubeconfig
// that it is for: PATH.key (mode 0600, absent where the key in place is kept) and
// PATH.csr. There is no other state: what is wanted is planned anew each time.
var PendingFolder = path.Join(catalog.KubernetesDir, "kubepki-pending")

// maxPending bounds what is looked at in that folder.
const maxPending = 10_000

const (
	keySuffix     = ".key"
	requestSuffix = ".csr"
)

// Pending is a key that waits for its certificate.
type Pending struct {
	// Place is the certificate or kubeconfig that it is for.
	Place trust.Place
	Key   crypto.Signer // nil: the key in place is kept
	// Request is what was asked for; nil where a run was interrupted before that.
	Request *x509.CertificateRequest

	requestText []byte // as it stands there
	hasKey      bool
}

// KeyPath is where the key of what stands at a place waits, as on the node.
func KeyPath(at trust.Place) string { return path.Join(PendingFolder, at.Path) + keySuffix }

// RequestPath is where the request for what stands at a place is, as on the node.
func RequestPath(at trust.Place) string { return path.Join(PendingFolder, at.Path) + requestSuffix }

// Pending reads what waits on the nodes, in the order of nodes and paths. It refuses a
// key that others than its owner may read, for it is no secret any more, and a folder
// into which others may write, for a key there may be theirs.
func (n *Nodes) Pending() ([]*Pending, error) {
	var all []*Pending
	for _, node := range slices.Sorted(maps.Keys(n.Dirs)) {
		files, err := pendingFiles(n.Dirs[node])
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			p, err := readPending(n.Dirs[node], trust.Place{Node: node, Path: file})
			if err != nil {
				return nil, err
			}
			all = append(all, p)
		}
	}
	return all, nil
}

// pendingFiles are the paths for which something waits below a root.
func pendingFiles(root string) ([]string, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, layout.Cause(err))
	}
	defer dir.Close()
	name, missing, err := layout.Follow(dir, PendingFolder)
	if err != nil || len(missing) > 0 {
		return nil, err
	}
	if err := trustedFolder(dir, name); err != nil {
		return nil, advise(fmt.Errorf("%s: %w", filepath.Join(root, PendingFolder), err), "a key there may be somebody else's: remove the folder, and ask anew with kubepki renew --csr-only")
	}
	var files []string
	seen := 0
	err = fs.WalkDir(dir.FS(), name, func(at string, d fs.DirEntry, err error) error {
		seen++
		switch {
		case errors.Is(err, fs.ErrPermission):
			return advise(fmt.Errorf("%s: permission denied", filepath.Join(root, PendingFolder)), "run it again with sudo")
		case err != nil:
			return fmt.Errorf("%s: %w", filepath.Join(root, PendingFolder), layout.Cause(err))
		case seen > maxPending:
			return fmt.Errorf("%s: more than %d files", filepath.Join(root, PendingFolder), maxPending)
		}
		of, ok := strings.CutSuffix(at, keySuffix)
		if !ok {
			of, ok = strings.CutSuffix(at, requestSuffix)
		}
		if of = strings.TrimPrefix(of, name); ok && d.Type().IsRegular() && !slices.Contains(files, of) {
			files = append(files, of)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

func readPending(root string, at trust.Place) (*Pending, error) {
	p := &Pending{Place: at}
	key, err := optional(root, KeyPath(at))
	if err != nil {
		return nil, err
	}
	if key != nil {
		p.hasKey = true
		again := "remove it, and ask anew with kubepki renew --csr-only"
		if key.Mode&0o077 != 0 {
			return nil, advise(fmt.Errorf("%s has mode %04o: others may have read the key", filepath.Join(root, KeyPath(at)), key.Mode), "%s", again)
		}
		if p.Key, err = issue.ParsePrivateKey(key.Data); err != nil {
			return nil, advise(fmt.Errorf("%s: %w", filepath.Join(root, KeyPath(at)), err), "%s", again)
		}
	}
	request, err := optional(root, RequestPath(at))
	if err != nil || request == nil {
		return p, err
	}
	p.requestText = request.Data
	if p.Request, err = issue.ParseRequest(request.Data); err != nil {
		p.Request = nil // somebody's note beside it: it is made anew
	}
	return p, nil
}

// optional reads a file that may be absent.
func optional(root, nodePath string) (*layout.Content, error) {
	content, err := layout.ReadFile(root, nodePath)
	var failed *layout.ReadError
	switch {
	case err == nil:
		return &content, nil
	case errors.As(err, &failed) && failed.State == trust.Missing:
		return nil, nil
	case errors.As(err, &failed) && failed.State == trust.Denied:
		return nil, advise(err, "run it again with sudo")
	}
	return nil, err
}

// PendingOf returns what waits for what stands at a place, nil when nothing does.
func PendingOf(all []*Pending, at trust.Place) *Pending {
	if i := slices.IndexFunc(all, func(p *Pending) bool { return p.Place == at }); i >= 0 {
		return all[i]
	}
	return nil
}

// Settled tells that the certificate of a key that waits is in place: a run that was
// killed has left the key.
func (p *Pending) Settled(i *renew.Item) bool {
	return p.Key != nil && i.Old != nil && trust.SameKey(i.Old.PublicKey, p.Key.Public())
}

// Ask is a key and its request that shall wait on a node.
type Ask struct {
	Place   trust.Place
	Key     crypto.Signer // nil: the key in place is kept
	Request *x509.CertificateRequest
}

// Stage puts keys and requests into the pending folders of their nodes, in one
// transaction per node. What waits there already with the same key and request is left
// as it is; a request in other words takes the place of the old one. A key is never
// replaced but where have says that it was seen: of two runs at once one fails.
func (n *Nodes) Stage(asks []Ask, have []*Pending) error {
	var staged []Staged
	defer func() {
		for _, s := range staged {
			_ = s.Tx.Rollback() // after Commit it does nothing
		}
	}()
	for _, node := range slices.Sorted(maps.Keys(n.Dirs)) {
		ofNode := slices.DeleteFunc(slices.Clone(asks), func(a Ask) bool { return a.Place.Node != node || a.stands(PendingOf(have, a.Place)) })
		if len(ofNode) == 0 {
			continue
		}
		tx, err := layout.Begin(n.Dirs[node])
		if err != nil {
			return err
		}
		staged = append(staged, Staged{n.Dirs[node], tx})
		if err := tx.Mkdir(PendingFolder, 0o700); err != nil {
			return err
		}
		for _, a := range ofNode {
			if err := a.stage(tx, n.Dirs[node], PendingOf(have, a.Place)); err != nil {
				return err
			}
		}
	}
	return Commit(staged)
}

// stands tells whether the very same waits already.
func (a Ask) stands(p *Pending) bool {
	return p != nil && p.Request != nil && bytes.Equal(p.Request.Raw, a.Request.Raw) && p.hasKey == (a.Key != nil)
}

func (a Ask) stage(tx *layout.Transaction, root string, p *Pending) error {
	if a.Key != nil {
		if err := a.stageKey(tx, root, p); err != nil {
			return err
		}
	}
	text := issue.EncodeRequest(a.Request)
	if p != nil && p.requestText != nil {
		if bytes.Equal(p.requestText, text) {
			return nil
		}
		return tx.Replace(RequestPath(a.Place), p.requestText, text)
	}
	return another(tx.Write(RequestPath(a.Place), text, publicFileMode))
}

func (a Ask) stageKey(tx *layout.Transaction, root string, p *Pending) error {
	text, err := issue.EncodePrivateKey(a.Key)
	if err != nil {
		return err
	}
	if p == nil || !p.hasKey {
		return another(tx.Write(KeyPath(a.Place), text, privateFileMode))
	}
	if trust.SameKey(p.Key.Public(), a.Key.Public()) {
		return nil
	}
	old, err := layout.ReadFile(root, KeyPath(a.Place))
	if err != nil {
		return err
	}
	return tx.ReplacePrivate(KeyPath(a.Place), old.Data, text)
}

// another explains that a file is there which was not a moment ago.
func another(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return advise(err, "another run asks for the same at this moment: run the same command again, which goes on with its key")
	}
	return err
}

// Forget removes what waits for certificates that are in place or never come, and the
// folders that are empty then. What is put in place goes by [Renewal.Answered]. What a
// run that is killed leaves of it, the next one removes.
func (n *Nodes) Forget(all ...trust.Place) error {
	var errs []error
	for _, at := range all {
		errs = append(errs, forget(n.Dirs[at.Node], at))
	}
	return errors.Join(errs...)
}

func forget(root string, at trust.Place) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("%s: %w", root, layout.Cause(err))
	}
	defer dir.Close()
	// The request goes first: a key whose certificate is in place tells by itself that
	// it is done with, while a request without one stands for the key in place.
	for _, file := range []string{RequestPath(at), KeyPath(at)} {
		folder, missing, err := layout.Follow(dir, path.Dir(file))
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			continue
		}
		name := path.Join(folder, path.Base(file))
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", filepath.Join(root, file), layout.Cause(err))
		}
		if err := layout.Sync(dir, folder); err != nil {
			return err
		}
	}
	for folder := path.Dir(KeyPath(at)); strings.HasPrefix(folder, PendingFolder); folder = path.Dir(folder) {
		name, missing, err := layout.Follow(dir, folder)
		if err != nil || len(missing) == 0 && dir.Remove(name) != nil {
			break // not empty
		}
	}
	return nil
}
