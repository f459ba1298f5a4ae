package cluster

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/catalog"
)

// controllers are those of kube-controller-manager that kubeadm asks for, without
// those whose work kubepki controller does.
const controllers = "--controllers=*,bootstrapsigner,tokencleaner,-certificatesigningrequest-approving-controller," +
	"-certificatesigningrequest-signing-controller,-certificatesigningrequest-cleaner-controller"

// sign makes way for who is to sign.
func (w Wanted) sign(c *catalog.Cluster) error {
	switch w.Signer {
	case "", ManagerSigner:
	case KubepkiSigner:
		if w.WithoutKubelets {
			return fmt.Errorf("--signer %s: it runs in pods, and no kubelet runs here", w.Signer)
		}
		addArgs(c, "kube-controller-manager", []string{controllers})
	default:
		return fmt.Errorf("--signer %s: is neither %s nor %s", w.Signer, ManagerSigner, KubepkiSigner)
	}
	return nil
}
