package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// currentClient is the link that a kubelet moves to its newest client
// certificate, a path on the node.
const currentClient = CertificatesDir + "/kubelet-client-current.pem"

// Finish does what kubeadm does when a node's kubelet has a client certificate
// of its own asking, and tells whether it has: it points a kubelet.conf that
// still holds the first certificate at the newest (k/k
// cmd/kubeadm/app/cmd/phases/init/kubeletfinalize.go), and removes the bootstrap
// kubeconfig (k/k cmd/kubeadm/app/cmd/phases/join/kubelet.go). It is to be called
// until it says yes, and may be called again.
func Finish(root string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(root, currentClient)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := pointAtCurrent(filepath.Join(root, Kubeconfig)); err != nil {
		return false, fmt.Errorf("point %s at the newest certificate: %w", Kubeconfig, err)
	}
	err := os.Remove(filepath.Join(root, BootstrapKubeconfig))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// pointAtCurrent replaces certificates in a kubeconfig by the path of the link.
func pointAtCurrent(file string) error {
	config, err := clientcmd.LoadFromFile(file)
	if err != nil {
		return err
	}
	holds := false
	for _, user := range config.AuthInfos {
		holds = holds || len(user.ClientCertificateData) > 0
	}
	if !holds {
		return nil
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificate: currentClient, ClientKey: currentClient}
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file) // whoever reads it sees the one or the other
}

// MarkControlPlane gives a node that has registered the labels of a control
// plane, as kubeadm does: a kubelet may not give them to itself. Its taint comes
// with [Config].ControlPlane.
func MarkControlPlane(ctx context.Context, client kubernetes.Interface, name string) error {
	const patch = `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":"","node.kubernetes.io/exclude-from-external-load-balancers":""}}}`
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label node %q as a control plane: %w", name, err)
	}
	return nil
}

// WriteKubeconfig writes the kubelet.conf that a kubelet writes when it joins
// (k/k pkg/kubelet/certificate/bootstrap/bootstrap.go), unless there is one: for
// light nodes, which have no kubelet to do so. Root is the node's root folder,
// server the URL of the API server, authority its authority as PEM.
func WriteKubeconfig(root, server string, authority []byte) error {
	if _, err := os.Stat(filepath.Join(root, Kubeconfig)); err == nil {
		return nil
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": {Server: server, CertificateAuthorityData: authority}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: currentClient, ClientKey: currentClient}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		CurrentContext: "default-context",
	})
	if err != nil {
		return err
	}
	return write(root, Kubeconfig, string(data), 0o600)
}
