package provision

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// present is what stands on the disk for one slot; nil is what does not.
type present struct {
	certificates []*x509.Certificate
	key          crypto.Signer
	request      *x509.CertificateRequest
	public       []crypto.PublicKey
	file         []byte // of a kubeconfig or manifest
}

// read fills what is there of a slot. What is there but unusable is refused.
func (p *Planned) read(s *slot) error {
	base := s.entry.Path
	switch s.entry.Kind {
	case KindManifest, KindSerial:
		data, err := p.load(s, base)
		s.have.file = data
		return err
	case catalog.KindKubeconfig:
		data, err := p.load(s, base)
		if s.have.file = data; err != nil || data != nil {
			return err
		}
	case catalog.KindSigningKey:
		if err := p.readPublic(s, base+".pub"); err != nil {
			return err
		}
		return p.readKey(s, base+".key")
	case catalog.KindAnchors:
		return p.readCertificates(s, base+".crt")
	}
	if err := p.readCertificates(s, base+".crt"); err != nil {
		return err
	}
	if s.entry.NoKey {
		return nil // its key is none of our business there
	}
	if err := p.readKey(s, base+".key"); err != nil {
		return err
	}
	if s.entry.Kind == catalog.KindAuthority {
		return nil
	}
	return p.readRequest(s, base+".csr")
}

// load returns nil for a file that is not there.
func (p *Planned) load(s *slot, nodePath string) ([]byte, error) {
	// An absolute link, as the kubelet makes it, leads to a place on the node.
	c, err := layout.ReadFile(p.host(s, "/"), nodePath)
	var read *layout.ReadError
	switch {
	case err == nil:
		p.noteMode(s, nodePath, c.Mode)
		return c.Data, nil
	case errors.Is(err, syscall.ENOTDIR):
		return nil, refuse(p.fileAbove(s, nodePath), "move it away: a folder belongs there", "is a file, not a folder")
	case errors.As(err, &read) && read.State == trust.Missing && !read.Dangling():
		return nil, nil
	case errors.As(err, &read) && read.State == trust.Denied:
		return nil, refuse(p.host(s, nodePath), "run it with the rights to read the folder", "%s", read.Reason)
	case errors.As(err, &read):
		return nil, refuse(p.host(s, nodePath), moveAway, "%s", read.Reason)
	}
	return nil, err
}

// fileAbove returns the file that stands where a path needs a folder.
func (p *Planned) fileAbove(s *slot, nodePath string) string {
	for nodePath = path.Dir(nodePath); nodePath != "/"; nodePath = path.Dir(nodePath) {
		if _, err := layout.ReadFile(p.options.Dir, s.prefix+nodePath); !errors.Is(err, syscall.ENOTDIR) {
			break
		}
	}
	return p.host(s, nodePath)
}

// noteMode remembers files with a private key that others can read or write.
func (p *Planned) noteMode(s *slot, nodePath string, mode fs.FileMode) {
	if ext := path.Ext(nodePath); mode&0o077 != 0 && (ext == ".key" || ext == ".conf") {
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s is kept with mode %#o, and holds a private key: chmod 600", p.host(s, nodePath), mode))
	}
}

func (p *Planned) material(s *slot, nodePath string, role trust.Role) (*trust.Material, crypto.Signer, error) {
	data, err := p.load(s, nodePath)
	if err != nil || data == nil {
		return nil, nil, err
	}
	m, key := layout.ParseMaterial(trust.Place{Path: nodePath}, role, data)
	if !m.OK() {
		return nil, nil, refuse(p.host(s, nodePath), moveAway, "%s", m.Reason)
	}
	return m, key, nil
}

func (p *Planned) readCertificates(s *slot, nodePath string) error {
	m, _, err := p.material(s, nodePath, trust.RoleBundle)
	if m == nil {
		return err
	}
	if len(m.Certificates) == 0 {
		return refuse(p.host(s, nodePath), moveAway, "is empty: a certificate is expected")
	}
	s.have.certificates = m.Certificates
	return nil
}

func (p *Planned) readKey(s *slot, nodePath string) error {
	_, key, err := p.material(s, nodePath, trust.RoleKey)
	s.have.key = key
	return err
}

func (p *Planned) readPublic(s *slot, nodePath string) error {
	m, _, err := p.material(s, nodePath, trust.RoleVerifyKeys)
	if m != nil {
		s.have.public = m.Keys
	}
	return err
}

func (p *Planned) readRequest(s *slot, nodePath string) error {
	data, err := p.load(s, nodePath)
	if err != nil || data == nil {
		return err
	}
	r, err := issue.ParseRequest(data)
	if err != nil {
		return refuse(p.host(s, nodePath), moveAway, "%v", err)
	}
	s.have.request = r
	return nil
}

// otherLayouts tells a folder by what stands in it, directly below the root.
var otherLayouts = []struct{ file, cause, help string }{
	{"etc/rancher/k3s", "holds a k3s node, whose credentials k3s makes itself", "point at a folder of its own"},
	{"etc/rancher/rke2", "holds an RKE2 node, whose credentials RKE2 makes itself", "point at a folder of its own"},
	{"var/lib/rancher", "holds a k3s or RKE2 node, whose credentials it makes itself", "point at a folder of its own"},
	{"server-ca.crt", "is a k3s certificates folder", "point at a folder of its own"},
	{"server/tls/server-ca.crt", "is a k3s server folder", "point at a folder of its own"},
	{"ca.srl", "is a folder of the service layout", "add --layout service, or point at a folder of its own"},
	{"ca.crt", "is a certificates folder, not the root of a node", "point at the folder that stands for the node's /, above etc/kubernetes"},
	{"pki/ca.crt", "is a folder like /etc/kubernetes, not the root of a node", "point at the folder that stands for the node's /, above etc/kubernetes"},
}

func (p *Planned) refuseOtherLayouts() error {
	if info, err := os.Stat(p.options.Dir); err == nil && !info.IsDir() {
		return refuse(p.options.Dir, "point at a folder; it is made when it is not there", "is not a folder")
	}
	layouts := otherLayouts
	if p.options.Service != nil {
		layouts = besideService
	}
	for _, l := range layouts {
		if _, err := os.Lstat(filepath.Join(p.options.Dir, l.file)); err == nil {
			return refuse(p.options.Dir, l.help, "%s (it has %s)", l.cause, l.file)
		}
	}
	return nil
}
