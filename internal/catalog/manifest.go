package catalog

// PodExtras is what a configuration adds to a static pod beyond its flags.
type PodExtras struct {
	Volumes []HostPath
	Env     []EnvVar
}

// HostPath is a file or folder of the node that a static pod mounts.
type HostPath struct {
	Name, HostPath, MountPath string // absolute paths
	ReadOnly                  bool
	Type                      string // HostPathType; empty: not checked
}

// EnvVar is an environment variable of a static pod.
type EnvVar struct {
	Name, Value string
	// ValueFrom is the field of that name as the configuration has it.
	ValueFrom map[string]any
}

// SystemTrust are folders in which a system may keep its own authorities beside
// /etc/ssl/certs, which may be made of links into them; kubeadm mounts those
// that its machine has (k/k cmd/kubeadm/app/phases/controlplane/volumes.go).
func SystemTrust() []string {
	return []string{"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}
}

// Manifest returns the static-pod manifest of a component on a control plane,
// ready to be encoded as YAML, as kubeadm writes it (k/k cmd/kubeadm/app/phases/controlplane,
// phases/etcd, util/staticpod). systemTrust are those of [SystemTrust] that the
// node has.
func (c *Cluster) Manifest(component string, n *ControlPlane, systemTrust []string) (map[string]any, error) {
	command, err := c.Command(component, n)
	if err != nil {
		return nil, err
	}
	p := pod{cluster: c, component: component, command: command, address: n.Address, port: n.BindPort, systemTrust: systemTrust}
	return p.manifest(), nil
}

// EtcdManifest returns the static-pod manifest of an external etcd member.
func (c *Cluster) EtcdManifest(m *EtcdMember) map[string]any {
	p := pod{cluster: c, component: Etcd, command: c.EtcdCommand(m), address: m.Address}
	return p.manifest()
}
