package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/reload"
)

// KubeconfigSource is a [Source] of a context of a kubeconfig, for clients of its
// server: the user's certificate, and the cluster's authorities. It reads its
// files again when they change. It may be used by several goroutines.
type KubeconfigSource struct {
	config *reload.Files[*kubeconfig]
	last   latest

	configTally, pairTally, bundleTally tally
}

// kubeconfig is what a kubeconfig was read to be.
type kubeconfig struct {
	server Server
	pair   value[*tls.Certificate]
	bundle value[*Bundle]
}

// value is what is embedded, or what is made of files.
type value[T any] struct {
	fixed T
	files *reload.Files[T] // nil: fixed
}

func (v value[T]) get() T {
	if v.files == nil {
		return v.fixed
	}
	return v.files.Get()
}

// Server is where the server of a kubeconfig is, and what it is called.
type Server struct {
	// URL begins with https://.
	URL string
	// Name is what its certificate must be good for: the field tls-server-name, or
	// else the host of the URL, a DNS name or an IP address. It is for [Named].
	Name string
}

// OpenKubeconfig reads a context of one kubeconfig (YAML or JSON), "" for the
// current one: the client certificate with its key, and the authority, each
// embedded or by a path, which is relative to the folder of the kubeconfig. The
// error names the file and the field.
//
// The kubeconfig and the files that it names are read again as those of
// [OpenFiles] are, also when it names others later, and told hears of it in the
// same way. While the kubeconfig cannot be used, what it said before is, and the
// files of then are still followed.
//
// A user without a certificate is refused, one with a plugin (exec or
// auth-provider) because its certificate would not be the one that counts, and a
// cluster whose server need not prove who it is or has no authority here. A token
// or password beside the certificate, and a proxy, are not looked at.
func OpenKubeconfig(path, context string, told func(Reload)) (*KubeconfigSource, error) {
	if path == "" {
		return nil, errors.New("the path of the kubeconfig is empty: neither KUBECONFIG nor ~/.kube/config is looked at")
	}
	if told == nil {
		told = func(Reload) {}
	}
	s := &KubeconfigSource{}
	build := func(contents [][]byte) (*kubeconfig, error) {
		c, err := layout.ReadCredential(contents[0], context)
		if err == nil {
			err = usable(c)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return s.open(path, c, told)
	}
	heard := s.configTally.before(told)
	var err error
	s.config, err = reload.New([]string{path}, build, func(_ *kubeconfig, err error) { heard(Reload{[]string{path}, err}) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Snapshot returns what the files hold now, and never an error.
func (s *KubeconfigSource) Snapshot() (*Snapshot, error) {
	return s.last.of(func() (Snapshot, error) {
		now := s.config.Get()
		return Snapshot{Certificate: now.pair.get(), Bundle: now.bundle.get()}, nil
	})
}

// Server returns what the kubeconfig says of the server now.
func (s *KubeconfigSource) Server() Server { return s.config.Get().server }

// Status tells how the files fare. It looks at them first, as a handshake does.
func (s *KubeconfigSource) Status() Status {
	now := s.config.Get()
	all := s.configTally.status(s.config.AsOf())
	if now.pair.files != nil {
		now.pair.get()
		all = all.with(s.pairTally.status(now.pair.files.AsOf()))
	}
	if now.bundle.files != nil {
		now.bundle.get()
		all = all.with(s.bundleTally.status(now.bundle.files.AsOf()))
	}
	return all
}

// usable refuses what gives no mutual TLS.
func usable(c *layout.Credential) error {
	user, cluster := fmt.Sprintf("users[%s].user", c.User), fmt.Sprintf("clusters[%s].cluster", c.Cluster)
	switch {
	case c.Plugin != "":
		return fmt.Errorf("%s.%s: is a plugin, which is not run: name the file of a client certificate", user, c.Plugin)
	case !c.Certificate.Given():
		return fmt.Errorf("%s.client-certificate: is not set, nor client-certificate-data: a token or password proves nothing in TLS; kubepki csr create makes a certificate", user)
	case c.Insecure:
		return fmt.Errorf("%s.insecure-skip-tls-verify: is true: take it out, and set certificate-authority", cluster)
	case !c.CA.Given():
		return fmt.Errorf("%s.certificate-authority: is not set, nor certificate-authority-data: name the authority that the server is from", cluster)
	}
	return nil
}

func (s *KubeconfigSource) open(path string, c *layout.Credential, told func(Reload)) (*kubeconfig, error) {
	k := &kubeconfig{}
	var err error
	if k.server, err = serverOf(c); err != nil {
		return nil, fmt.Errorf("%s: clusters[%s].cluster.server: %w", path, c.Cluster, err)
	}
	var shown succession
	pair := func(all []named) (*tls.Certificate, error) {
		return shown.next(parsePair(all[0], all[1], x509.ExtKeyUsageClientAuth))
	}
	if k.pair, err = openParts(path, pair, s.pairTally.before(told), c.Certificate, c.Key); err != nil {
		return nil, err
	}
	bundle := func(all []named) (*Bundle, error) {
		b, err := ParseBundle(all[0].pem)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", all[0].name, err)
		}
		return b, nil
	}
	if k.bundle, err = openParts(path, bundle, s.bundleTally.before(told), c.CA); err != nil {
		return nil, err
	}
	// What was wrong with the files of before counts no longer.
	s.pairTally.failing.Store(false)
	s.bundleTally.failing.Store(false)
	return k, nil
}

// openParts makes a value of parts of a kubeconfig, some of which may be files.
func openParts[T any](path string, build func([]named) (T, error), told func(Reload), parts ...layout.Part) (v value[T], err error) {
	var files []string
	all := make([]named, len(parts))
	for i, p := range parts {
		all[i] = named{path + ": " + p.Field, p.Data}
		if p.Path == "" {
			continue
		}
		all[i].name = p.Path
		if !filepath.IsAbs(p.Path) {
			all[i].name = filepath.Join(filepath.Dir(path), p.Path)
		}
		files = append(files, all[i].name)
	}
	if len(files) == 0 {
		v.fixed, err = build(all)
		return v, err
	}
	v.files, err = reload.New(files, func(contents [][]byte) (T, error) {
		now, next := append([]named(nil), all...), 0
		for i, p := range parts {
			if p.Path != "" {
				now[i].pem = contents[next]
				next++
			}
		}
		return build(now)
	}, func(_ T, err error) { told(Reload{files, err}) })
	return v, err
}

// serverOf follows client-go in taking a HOST:PORT for https (k8s.io/client-go/rest/url_utils.go,
// DefaultServerURL).
func serverOf(c *layout.Credential) (Server, error) {
	text := c.Server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Server{}, errors.New("is not a URL")
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return Server{}, errors.New("is not of the form https://HOST:PORT: there is no TLS otherwise")
	}
	s := Server{URL: text, Name: c.ServerName}
	if s.Name == "" {
		s.Name = u.Hostname()
	}
	return s, nil
}
