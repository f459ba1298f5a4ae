package layout

import (
	"path"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// unitKubelet is the kubelet as its unit starts it, or as it runs. A bare one without flags is
// that of a package whose drop-in was not given, and tells nothing.
func (r *nodeReader) unitKubelet() (trust.Component, bool) {
	return find(append(r.unitComponents(), r.ownProcesses()...), func(c trust.Component) bool { return c.Name == catalog.Kubelet && len(c.Flags) > 0 })
}

// readUnitKubelet completes a kubelet, whose flags are all of its command line,
// from its configuration file, and returns the folder of its static pods.
func (r *nodeReader) readUnitKubelet(c trust.Component) string {
	if config, ok := c.Flag("config"); ok && path.IsAbs(config) {
		switch content, err := r.read(config, false); {
		case err == nil:
			k, parseErr := ParseKubeletConfiguration(r.place(config), content.Data)
			if parseErr != nil {
				r.notSeen(config, "the kubelet's configuration was not understood: "+parseErr.Error())
				break
			}
			for flag, values := range k.Flags {
				if _, set := c.Flags[flag]; !set {
					c.Flags[flag] = values
					c.Settings[flag] = r.place(config).In("--" + flag)
				}
			}
		case err.State == trust.Unreadable:
			r.notSeen(config, "the kubelet's configuration "+err.Reason)
		}
	}
	r.node.Components = append(r.node.Components, c)
	if folder, ok := c.Flag("pod-manifest-path"); ok && path.IsAbs(folder) {
		return path.Clean(folder)
	}
	if r.node.Layout == catalog.LayoutKubeadm {
		return path.Join(catalog.KubernetesDir, "manifests")
	}
	return ""
}
