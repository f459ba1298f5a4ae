package light

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"sync/atomic"

	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"
)

// store keeps certificates in the kubelet's own store of files, and the newest at
// hand.
type store struct {
	certificate.FileStore
	newest  atomic.Pointer[tls.Certificate]
	changed func() // when there is a newer one
}

func newStore(name, dir string) (*store, error) {
	files, err := certificate.NewFileStoreWithLogger(klog.Background().V(3), name, dir, dir, "", "")
	if err != nil {
		return nil, err
	}
	s := &store{FileStore: files, changed: func() {}}
	if c, err := files.Current(); err == nil {
		s.newest.Store(c)
	}
	return s, nil
}

// Update stores a certificate and makes it the current one.
func (s *store) Update(cert, key []byte) (*tls.Certificate, error) {
	c, err := s.FileStore.Update(cert, key)
	if err != nil {
		return nil, err
	}
	if err := s.relink(); err != nil {
		return nil, err
	}
	s.newest.Store(c)
	s.changed()
	return c, nil
}

// relink makes the link to the current file one that is right on the node, too.
// A kubelet's leads to a path from the node's "/", which is elsewhere here.
func (s *store) relink() error {
	link := s.CurrentPath()
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(target), link+".new"); err != nil {
		return err
	}
	return os.Rename(link+".new", link)
}

// current is the newest certificate, for a TLS configuration.
func (s *store) current() (*tls.Certificate, error) {
	if c := s.newest.Load(); c != nil {
		return c, nil
	}
	return nil, errNoCertificate
}
