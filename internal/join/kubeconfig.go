package join

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/trust"
)

// access is the current context of a kubeconfig.
type access struct {
	file    string               // where it stands on the node; empty for flags
	stored  *clientcmdapi.Config // as it is written, paths made absolute
	cluster *clientcmdapi.Cluster
	user    *clientcmdapi.AuthInfo
	ca      []byte // PEM, empty: the machine's own authorities
	config  *rest.Config
}

// readAccess reads a kubeconfig of the node, and the files that it names.
func (d *disk) readAccess(nodePath string) (*access, error) {
	data, err := d.read(nodePath)
	if err != nil {
		return nil, err
	}
	stored, err := clientcmd.Load(data)
	if err != nil {
		return nil, fmt.Errorf("%s: not a kubeconfig: %w", d.host(nodePath), err)
	}
	a, err := d.access(nodePath, stored)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.host(nodePath), err)
	}
	return a, nil
}

// access resolves the current context. Files that it names are read below the
// root and given to client-go as data, as their paths are the node's.
func (d *disk) access(nodePath string, stored *clientcmdapi.Config) (*access, error) {
	a := &access{file: nodePath, stored: stored}
	context, ok := stored.Contexts[stored.CurrentContext]
	if !ok {
		return nil, fmt.Errorf("current-context: there is no context %q", stored.CurrentContext)
	}
	if a.cluster, ok = stored.Clusters[context.Cluster]; !ok {
		return nil, fmt.Errorf("contexts[%s].context.cluster: there is no cluster %q", stored.CurrentContext, context.Cluster)
	}
	if a.user, ok = stored.AuthInfos[context.AuthInfo]; !ok {
		return nil, fmt.Errorf("contexts[%s].context.user: there is no user %q", stored.CurrentContext, context.AuthInfo)
	}
	if err := safe(context.Cluster, a.cluster); err != nil {
		return nil, err
	}
	return a, d.connect(a, path.Dir(nodePath))
}

// connect makes the configuration of a client from an access.
func (d *disk) connect(a *access, folder string) error {
	cluster, user := a.cluster.DeepCopy(), a.user.DeepCopy()
	for _, f := range []struct {
		stored, file *string
		data         *[]byte
	}{
		{&a.cluster.CertificateAuthority, &cluster.CertificateAuthority, &cluster.CertificateAuthorityData},
		{&a.user.ClientCertificate, &user.ClientCertificate, &user.ClientCertificateData},
		{&a.user.ClientKey, &user.ClientKey, &user.ClientKeyData},
	} {
		if *f.file == "" || len(*f.data) > 0 { // client-go, too, prefers data
			*f.file = ""
			continue
		}
		*f.stored = absolute(folder, *f.stored)
		data, err := d.read(*f.stored)
		if err != nil {
			return err
		}
		*f.file, *f.data = "", data
	}
	if user.TokenFile != "" {
		a.user.TokenFile = absolute(folder, user.TokenFile)
		data, err := d.read(a.user.TokenFile)
		if err != nil {
			return err
		}
		user.TokenFile, user.Token = "", strings.TrimSpace(string(data))
	}
	a.ca = cluster.CertificateAuthorityData
	var err error
	a.config, err = clientcmd.NewDefaultClientConfig(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": cluster},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": user},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, nil).ClientConfig()
	if err != nil {
		return err
	}
	a.config.QPS = -1
	a.config.UserAgent = "kubepki"
	return nil
}

func absolute(folder, file string) string {
	if path.IsAbs(file) {
		return path.Clean(file)
	}
	return path.Join(folder, file)
}

// safe refuses a cluster to which a token would be sent without knowing who
// takes it.
func safe(name string, c *clientcmdapi.Cluster) error {
	u, err := url.Parse(c.Server)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("clusters[%s].cluster.server: %q is not a URL like https://10.0.0.11:6443", name, c.Server)
	case c.InsecureSkipTLSVerify:
		return fmt.Errorf("clusters[%s].cluster.insecure-skip-tls-verify is set: the token would go to whoever answers; give the cluster's authority instead", name)
	}
	return nil
}

// anonymous is the access without any credential.
func (a *access) anonymous() *rest.Config { return rest.AnonymousClientConfig(a.config) }

// as is the access with a pair.
func (a *access) as(p *pair) (*rest.Config, error) {
	data, err := p.encode()
	if err != nil {
		return nil, err
	}
	config := a.anonymous()
	config.QPS = -1
	config.CertData, config.KeyData = data, data
	return config, nil
}

// pair is the client certificate of an access and its key.
func (a *access) pair() (*pair, error) {
	t := a.config.TLSClientConfig
	if len(t.CertData) == 0 {
		return nil, errors.New("holds no client certificate")
	}
	return parsePair(t.CertData, t.KeyData)
}

// kubeconfigFor is the kubeconfig that the kubelet writes when it has its
// certificate (k/k pkg/kubelet/certificate/bootstrap/bootstrap.go,
// writeKubeconfigFromBootstrapping). Upstream forgets tls-server-name and
// proxy-url; without them the server is not reached again, so they are kept.
func kubeconfigFor(a *access, pem string) ([]byte, error) {
	c := &clientcmdapi.Cluster{
		Server: a.cluster.Server, TLSServerName: a.cluster.TLSServerName, ProxyURL: a.cluster.ProxyURL,
		CertificateAuthority: a.cluster.CertificateAuthority, CertificateAuthorityData: a.cluster.CertificateAuthorityData,
	}
	if len(c.CertificateAuthorityData) > 0 {
		c.CertificateAuthority = ""
	}
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": c},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: pem, ClientKey: pem}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		CurrentContext: "default-context",
	})
}

// pointedAt is a kubeconfig with its user's certificate and key at a path, and
// all else as it was.
func pointedAt(a *access, pem string) ([]byte, error) {
	config := a.stored.DeepCopy()
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	user.ClientCertificate, user.ClientKey = pem, pem
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	return clientcmd.Write(*config)
}

// sameCluster tells whether two accesses have an authority in common.
func sameCluster(a, b *access) bool {
	ours, err := trust.ParseCertificates(a.ca)
	theirs, otherErr := trust.ParseCertificates(b.ca)
	if err != nil || otherErr != nil {
		return a.cluster.Server == b.cluster.Server
	}
	for _, c := range ours {
		for _, o := range theirs {
			if c.Equal(o) {
				return true
			}
		}
	}
	return false
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
