//go:build linux

package lab_test

import (
	"context"
	"crypto/x509/pkix"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// kubeletRows start three kubelets: one whose kubeconfig names the client
// certificate by path, one with an embedded client certificate and an authority
// by path, and one that joins with a token that is not good. Those that a
// kubelet gets and renews by itself are seen by TestRealKubelets.
func (b *bench) kubeletRows() []*reloadRow {
	return slices.Concat(b.kubeletByPath(), b.kubeletEmbedded(), b.kubeletJoining())
}

// prepareKubelet makes a worker and the files of its kubelet, which neither asks
// for certificates nor renews them unless it joins.
func (b *bench) prepareKubelet(instance, address string, join *kubelet.Join) *lab.Manifest {
	b.t.Helper()
	name := "w" + address[len(address)-1:]
	at := netip.MustParseAddr(address)
	node, err := b.network.Node(lab.NodeConfig{
		Name: name, Root: filepath.Join(b.roots, name), Programs: programs, Logs: b.t.TempDir(), Machine: true,
		Addresses: []netip.Prefix{netip.PrefixFrom(at, 24)},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.workers[instance] = node
	runtime, err := cri.Start(node, at)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := runtime.Close(); err != nil {
			b.t.Error(err)
		}
	})
	manifest, err := kubelet.Prepare(node.Root, kubelet.Config{Name: name, Addresses: []netip.Addr{at}, Join: join})
	if err != nil {
		b.t.Fatal(err)
	}
	manifest.Name = instance
	b.configure(instance, func(c *kubeletv1beta1.KubeletConfiguration) {
		// On by default since Kubernetes 1.37; the lab is a user namespace.
		c.FeatureGates = map[string]bool{"KubeletInUserNamespace": true}
	})
	return manifest
}

// configure changes the kubelet's configuration.
func (b *bench) configure(instance string, change func(*kubeletv1beta1.KubeletConfiguration)) {
	b.t.Helper()
	path := filepath.Join(b.at(instance).Root, kubelet.ConfigFile)
	var c kubeletv1beta1.KubeletConfiguration
	if err := yaml.Unmarshal(read(b.t, path), &c); err != nil {
		b.t.Fatal(err)
	}
	change(&c)
	data, err := yaml.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	write(b.t, path, string(data))
}

// configureFiles gives a kubelet that does not join a serving pair and a bundle
// of client authorities, in files.
func (b *bench) configureFiles(instance string, serving credential) {
	b.t.Helper()
	b.configure(instance, func(c *kubeletv1beta1.KubeletConfiguration) {
		c.RotateCertificates, c.ServerTLSBootstrap = false, false
		c.TLSCertFile = b.put(instance, "tls-cert-file", serving.certificate)
		c.TLSPrivateKeyFile = b.put(instance, "tls-private-key-file", serving.key)
		c.Authentication.X509.ClientCAFile = b.put(instance, "client-ca-file", b.cluster.pem)
	})
}

// runKubelet starts a kubelet with a kubeconfig.
func (b *bench) runKubelet(manifest *lab.Manifest, kubeconfig []byte) {
	b.t.Helper()
	b.putAt(manifest.Name, kubelet.Kubeconfig, kubeconfig)
	b.run(manifest)
}

// putAt writes a file of an instance's node.
func (b *bench) putAt(instance, path string, content []byte) {
	b.t.Helper()
	path = filepath.Join(b.at(instance).Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	write(b.t, path, string(content))
}

func nodeIdentity(name string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
}

func (b *bench) kubeletByPath() []*reloadRow {
	const instance, address = catalog.Kubelet, "10.99.0.22"
	manifest := b.prepareKubelet(instance, address, nil)
	serving := b.cluster.leaf(b.t, nodeIdentity("w2"), address)
	b.configureFiles(instance, serving)
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(b.cluster))
	old, next := b.cluster.leaf(b.t, nodeIdentity("w2")), b.cluster.leaf(b.t, nodeIdentity("w2"))
	// Both in one file behind a link, as the kubelet's own.
	both := func(c credential) []byte { return slices.Concat(c.certificate, c.key) }
	current := b.put(instance, "client-certificate", both(old))
	b.link(instance, "client-certificate")
	b.runKubelet(manifest, b.kubeconfig(clientcmdapi.Cluster{Server: f.url(), CertificateAuthorityData: b.cluster.pem},
		clientcmdapi.AuthInfo{ClientCertificate: current, ClientKey: current}))
	clients := newAuthority(b.t, "clients of kubelets")
	return []*reloadRow{
		b.servingRow(instance, "tls-cert-file", "tls-private-key-file", address+":10250", "", nil, b.cluster.again(b.t, serving.certificate)),
		b.bundleRow(instance, "client-ca-file", b.swap(instance, "client-ca-file", b.cluster.pem, clients.pem),
			b.caller(clients.leaf(b.t, masters), "https://"+address+":10250/pods", nil)),
		clientRow(instance, []string{"client-certificate", "client-key"}, f, old, next,
			func(context.Context) error { return b.swapLink(instance, "client-certificate", both(next)) }),
	}
}

func (b *bench) kubeletEmbedded() []*reloadRow {
	const instance, address = "kubelet-embedded", "10.99.0.23"
	manifest := b.prepareKubelet(instance, address, nil)
	serving := b.cluster.leaf(b.t, nodeIdentity("w3"), address)
	b.configureFiles(instance, serving)
	b.link(instance, "tls-cert-file")
	b.link(instance, "tls-private-key-file")
	servers := newAuthority(b.t, "servers of kubelets")
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(servers))
	old, next := b.cluster.leaf(b.t, nodeIdentity("w3")), b.cluster.leaf(b.t, nodeIdentity("w3"))
	named := clientcmdapi.Cluster{Server: f.url(), CertificateAuthority: b.put(instance, "certificate-authority", b.cluster.pem)}
	embedded := func(c credential) []byte {
		return b.kubeconfig(named, clientcmdapi.AuthInfo{ClientCertificateData: c.certificate, ClientKeyData: c.key})
	}
	b.runKubelet(manifest, embedded(old))
	path := filepath.Join(b.at(instance).Root, kubelet.Kubeconfig)
	rows := []*reloadRow{
		clientRow(catalog.Kubelet, []string{"client-certificate-data", "client-key-data"}, f, old, next,
			func(context.Context) error { return replace(path, embedded(next)) }),
		trustRow(catalog.Kubelet, "certificate-authority", f, 10*time.Second, b.swap(instance, "certificate-authority", b.cluster.pem, servers.pem), nil),
	}
	rows = append(rows, b.linkedPairRow(instance, address+":10250", "w3", b.cluster.again(b.t, serving.certificate)))
	for _, r := range rows {
		r.instance = instance
	}
	return rows
}

// linkedPairRow switches the links to a serving pair. It names the server in
// its handshakes: to such clients kubelets of all versions present what they
// have read last.
func (b *bench) linkedPairRow(instance, address, serverName string, c credential) *reloadRow {
	return &reloadRow{
		component: catalog.Kubelet, settings: []string{"tls-cert-file", "tls-private-key-file"},
		as: "to clients that name the server", want: &catalog.Takeup{Manner: catalog.ByItself, Within: time.Minute, Notified: true},
		seen: func(ctx context.Context) (bool, error) { return b.presents(ctx, address, serverName, nil, c) },
		change: func(context.Context) error {
			if err := b.swapLink(instance, "tls-private-key-file", c.key); err != nil {
				return err
			}
			return b.swapLink(instance, "tls-cert-file", c.certificate)
		},
		notify: func() error { return b.removeLinked(instance, "tls-cert-file") },
	}
}

// kubeletJoining: a token that is not good is replaced by one that is.
func (b *bench) kubeletJoining() []*reloadRow {
	const instance = joining
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(b.cluster))
	good := bootstrapToken(b.t, b.controlPlane)
	bad := good[:strings.Index(good, ".")+1] + strings.Repeat("0", 16)
	manifest := b.prepareKubelet(instance, "10.99.0.24", &kubelet.Join{Server: f.url(), Authority: b.cluster.pem, Token: bad})
	b.run(manifest)
	path := filepath.Join(b.at(instance).Root, kubelet.BootstrapKubeconfig)
	return []*reloadRow{{
		component: catalog.Kubelet, settings: []string{"bootstrap-kubeconfig"}, instance: instance,
		change: func(context.Context) error {
			return replace(path, b.kubeconfig(clientcmdapi.Cluster{Server: f.url(), CertificateAuthorityData: b.cluster.pem},
				clientcmdapi.AuthInfo{Token: good}))
		},
		seen: func(context.Context) (bool, error) {
			_, token := f.shown()
			if token != bad && token != good {
				return false, errWait
			}
			return token == good, nil
		},
	}}
}
