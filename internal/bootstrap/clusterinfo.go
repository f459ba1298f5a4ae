package bootstrap

import (
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"github.com/kubepki/kubepki/internal/trust"
)

// ClusterInfo is what the ConfigMap kube-public/cluster-info says: where the
// API server is, and whom to trust.
type ClusterInfo struct {
	Server     string              // URL
	CA         []byte              // PEM, as it stands in the kubeconfig
	Anchors    []*x509.Certificate // of CA; at least one
	Kubeconfig []byte              // what is signed
}

// Reasons for which cluster-info is not believed, for errors.Is.
var (
	// ErrNoClusterInfo: the ConfigMap holds no kubeconfig.
	ErrNoClusterInfo = errors.New("it holds no kubeconfig: the cluster is not set up for bootstrap tokens")
	// ErrNotSigned: there is no signature with this token. The controller
	// bootstrap-signer-controller of kube-controller-manager makes it a moment
	// after the token, and removes it when the token expires.
	ErrNotSigned = errors.New("it is not signed with this token: the token does not exist, has expired, may not sign, or was made a moment ago")
	// ErrSignature: somebody signed who does not know the token's secret, or
	// the content was changed.
	ErrSignature = errors.New("its signature is not made with this token: this is not the cluster of the token")
	// ErrNotPinned: none of its authorities is among the pins.
	ErrNotPinned = errors.New("none of its authorities is pinned: this is not the cluster that the pins were made for")
)

// ClusterInfoKubeconfig returns the kubeconfig that kubeadm puts into
// cluster-info: one cluster without a name, byte for byte
// (cmd/kubeadm/app/phases/bootstraptoken/clusterinfo). The CA is PEM.
func ClusterInfoKubeconfig(server string, ca []byte) ([]byte, error) {
	return clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"": {Server: server, CertificateAuthorityData: ca}},
	})
}

// Sign returns the detached JWS (RFC 7515, appendix F; HS256, kid = the
// token's id) of a kubeconfig, as bootstrap-signer-controller makes it.
func Sign(kubeconfig []byte, t Token) (string, error) {
	signature, err := jws.ComputeDetachedSignature(string(kubeconfig), t.id, t.secret)
	if err != nil {
		return "", fmt.Errorf("signing cluster-info with token %s: %w", t.id, err)
	}
	return signature, nil
}

// SignatureKey is the key of cluster-info under which the signature with a
// token stands.
func SignatureKey(id string) string { return api.JWSSignatureKeyPrefix + id }

// VerifySignature tells whether the data of cluster-info is signed with the
// token: nil, ErrNoClusterInfo, ErrNotSigned or ErrSignature.
func VerifySignature(data map[string]string, t Token) error {
	kubeconfig, signature := data[api.KubeConfigKey], data[SignatureKey(t.id)]
	switch {
	case kubeconfig == "":
		return ErrNoClusterInfo
	case signature == "":
		return ErrNotSigned
	}
	want, err := Sign([]byte(kubeconfig), t)
	if err != nil {
		return err
	}
	// What a forger's attempt has right must not show in the time it takes.
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return ErrSignature
	}
	return nil
}

// ReadClusterInfo verifies the signature on the data of cluster-info, and only
// then reads it. Nothing but the server and the CA is taken from it: a
// kubeconfig could name programs to run, files to read and proxies.
func ReadClusterInfo(data map[string]string, t Token) (*ClusterInfo, error) {
	if err := VerifySignature(data, t); err != nil {
		return nil, err
	}
	return ParseClusterInfo([]byte(data[api.KubeConfigKey]))
}

// ParseClusterInfo reads the kubeconfig of cluster-info, without any proof.
func ParseClusterInfo(kubeconfig []byte) (*ClusterInfo, error) {
	server, ca, err := ClusterOf(kubeconfig)
	if err != nil {
		return nil, err
	}
	info := &ClusterInfo{Server: server, CA: ca, Kubeconfig: kubeconfig}
	if info.Anchors, err = trust.ParseCertificates(info.CA); err != nil {
		return nil, fmt.Errorf("kubeconfig: certificate-authority-data: %w", err)
	}
	return info, nil
}

// ClusterOf returns the URL and the authorities, which may be anything, of the
// cluster that the kubeconfig of cluster-info is about.
func ClusterOf(kubeconfig []byte) (server string, ca []byte, err error) {
	if len(kubeconfig) > trust.MaxPEM {
		return "", nil, errors.New("kubeconfig: larger than 1 MiB")
	}
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// The order of kubeadm's GetClusterFromKubeConfig.
	cluster := config.Clusters[""]
	if current := config.Contexts[config.CurrentContext]; cluster == nil && current != nil {
		cluster = config.Clusters[current.Cluster]
	}
	if cluster == nil {
		return "", nil, errors.New("kubeconfig: it has no cluster without a name")
	}
	if _, err := Endpoint(cluster.Server); err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return cluster.Server, cluster.CertificateAuthorityData, nil
}

// Pinned returns the anchors whose keys are pinned.
func (i *ClusterInfo) Pinned(pins []Pin) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(i.Anchors), func(c *x509.Certificate) bool {
		return !slices.Contains(pins, PinOf(c))
	})
}
