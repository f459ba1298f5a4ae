package kubelet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/lab"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Where kubeadm has what a kubelet reads (k/k
// cmd/kubeadm/app/constants/constants.go). All are paths on the node.
const (
	Kubeconfig          = "/etc/kubernetes/kubelet.conf"
	BootstrapKubeconfig = "/etc/kubernetes/bootstrap-kubelet.conf"
	ConfigFile          = "/var/lib/kubelet/config.yaml"
	FlagsFile           = "/var/lib/kubelet/kubeadm-flags.env"
	AuthorityFile       = "/etc/kubernetes/pki/ca.crt"
	// CertificatesDir is the kubelet's own default.
	CertificatesDir = "/var/lib/kubelet/pki"
)

// Config describes a node to [Prepare].
type Config struct {
	// Name of the node in the Kubernetes API.
	Name string
	// Addresses of the node: one, or one of each family, the first preferred.
	Addresses []netip.Addr
	// ControlPlane keeps other pods away from the node by kubeadm's taint.
	ControlPlane bool
	// ClusterDNS is the address that pods are told to ask; none: 10.96.0.10,
	// which kubeadm takes for its default service network.
	ClusterDNS netip.Addr
	// FeatureGates are switched besides those that the lab needs.
	FeatureGates map[string]bool
	// Join tells how to join the cluster; nil for a node that has a kubelet.conf.
	Join *Join
}

// Join is what a joining node is told.
type Join struct {
	// Server is the URL of the API server.
	Server string
	// Authority is the cluster's authority as PEM: one certificate or several.
	Authority []byte
	// Token is a bootstrap token, ID.SECRET.
	Token string
}

// probe is the kubelet's own, of kubeadm's configuration.
var probe = &url.URL{Scheme: "http", Host: "127.0.0.1:10248", Path: "/healthz"}

// Prepare writes the files of a kubelet below root, the absolute path of the
// node's root folder, and returns how to start it. The node must be a machine
// ([lab.NodeConfig.Machine]). Prepare may be called again at any time: a
// kubelet that has joined keeps its credentials, and is given no token.
func Prepare(root string, c Config) (*lab.Manifest, error) {
	if c.Name == "" || len(c.Addresses) == 0 {
		return nil, errors.New("prepare a kubelet: a node needs a name and an address")
	}
	for _, step := range []func(string, Config) error{makeFolder, writeMachineID, writeJoin, writeConfiguration, writeFlags} {
		if err := step(root, c); err != nil {
			return nil, fmt.Errorf("prepare the kubelet of node %q: %w", c.Name, err)
		}
	}
	// The first three are what kubeadm's systemd unit has (k/release
	// cmd/krel/templates/latest/kubeadm/10-kubeadm.conf), the others what that
	// unit reads from kubeadm-flags.env.
	command := []string{"kubelet", "--bootstrap-kubeconfig=" + BootstrapKubeconfig, "--kubeconfig=" + Kubeconfig, "--config=" + ConfigFile}
	return &lab.Manifest{
		Name:    "kubelet",
		Command: append(command, flags(c)...),
		// The kubelet calls the machine's mount and umount.
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Probe: probe,
	}, nil
}

// flags are those that differ from node to node.
func flags(c Config) []string {
	var addresses []string
	for _, a := range c.Addresses {
		addresses = append(addresses, a.String())
	}
	// The name of the machine is that of the machine that the lab runs on.
	return []string{"--hostname-override=" + c.Name, "--node-ip=" + strings.Join(addresses, ",")}
}

// writeFlags writes them where kubeadm's systemd unit would find them, for those
// who read the node's files.
func writeFlags(root string, c Config) error {
	return write(root, FlagsFile, fmt.Sprintf("KUBELET_KUBEADM_ARGS=%q\n", strings.Join(flags(c), " ")), 0o644)
}

// makeFolder makes the kubelet's folder with kubeadm's mode (k/k
// cmd/kubeadm/app/phases/kubelet/flags.go): it will hold keys and pods' tokens.
func makeFolder(root string, _ Config) error {
	return os.MkdirAll(filepath.Join(root, filepath.Dir(ConfigFile)), 0o700)
}

// writeMachineID gives the node the number that every machine has, and the
// kubelet reports.
func writeMachineID(root string, c Config) error {
	sum := sha256.Sum256([]byte("kubepki-lab " + c.Name))
	return write(root, "/etc/machine-id", hex.EncodeToString(sum[:16])+"\n", 0o644)
}

// writeJoin writes what a joining node starts from.
func writeJoin(root string, c Config) error {
	if c.Join == nil {
		return nil
	}
	// kubeadm writes it once, too: whoever rotates the authority is to find the
	// file as the node has it.
	if _, err := os.Stat(filepath.Join(root, AuthorityFile)); errors.Is(err, fs.ErrNotExist) {
		if err := write(root, AuthorityFile, string(c.Join.Authority), 0o644); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(root, Kubeconfig)); err == nil {
		return nil // it has joined
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"kubernetes": {Server: c.Join.Server, CertificateAuthorityData: c.Join.Authority}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"tls-bootstrap-token-user": {Token: c.Join.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"tls-bootstrap-token-user@kubernetes": {Cluster: "kubernetes", AuthInfo: "tls-bootstrap-token-user"}},
		CurrentContext: "tls-bootstrap-token-user@kubernetes",
	})
	if err != nil {
		return err
	}
	return write(root, BootstrapKubeconfig, string(data), 0o600)
}

// write writes a file of the node, at an absolute path on it.
func write(root, path, content string, mode fs.FileMode) error {
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), mode)
}
