package cluster

import (
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// controllers are those of kube-controller-manager that kubeadm asks for, without
// those whose work kubepki controller does.
const controllers = "--controllers=*,bootstrapsigner,tokencleaner,-certificatesigningrequest-approving-controller," +
	"-certificatesigningrequest-signing-controller,-certificatesigningrequest-cleaner-controller"

// sign makes way for who is to sign.
func (w Wanted) sign(c *catalog.Cluster) error {
	if w.SigningDuration < 0 || w.SigningDuration > 0 && w.SigningDuration < time.Minute {
		return fmt.Errorf("--signing-duration %s: at least a minute is possible", w.SigningDuration)
	}
	if w.SigningDuration > 0 {
		addArgs(c, ManagerSigner, []string{"--cluster-signing-duration=" + w.SigningDuration.String()})
	}
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
