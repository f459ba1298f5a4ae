package config

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/catalog"
)

// encode writes a cluster as kubepki's own configuration.
func encode(c *catalog.Cluster) ([]byte, error) {
	d := clusterDocument{
		typeMeta:    typeMeta{APIVersion: APIVersion, Kind: "Cluster"},
		ClusterName: c.Name, KubernetesVersion: c.KubernetesVersion, ControlPlaneEndpoint: c.ControlPlaneEndpoint,
		CertificatesDir: c.CertificatesDir, ImageRepository: c.ImageRepository,
		Networking:          networking{ServiceSubnet: c.ServiceSubnet, PodSubnet: c.PodSubnet, DNSDomain: c.DNSDomain},
		APIServer:           apiServer{component: encodeComponent(c, catalog.APIServer), CertSANs: c.CertSANs},
		ControllerManager:   encodeComponent(c, catalog.ControllerManager),
		Scheduler:           encodeComponent(c, catalog.Scheduler),
		Kubelet:             ownKubelet{ExtraArgs: encodeComponent(c, catalog.Kubelet).ExtraArgs},
		Authorities:         ownAuthorities{Shape: string(c.Shape), Kubelet: c.KubeletAuthority},
		EncryptionAlgorithm: c.Algorithm, CertificateValidityPeriod: c.Validity.String(), CACertificateValidityPeriod: c.CAValidity.String(),
		KubeProxy: c.KubeProxy,
	}
	if c.StartupTimeout > 0 {
		d.StartupTimeout = c.StartupTimeout.String()
	}
	etcd := encodeComponent(c, catalog.Etcd)
	d.Etcd = ownEtcd{DataDir: c.EtcdDataDir, Image: c.EtcdImage, ExtraArgs: etcd.ExtraArgs, ExtraEnvs: etcd.ExtraEnvs}
	for _, n := range c.ControlPlanes {
		d.ControlPlanes = append(d.ControlPlanes, ownNode{Name: n.Name, Address: n.Address.String(), BindPort: int32(n.BindPort),
			CertSANs: n.CertSANs, Etcd: ownEtcdSANs{n.EtcdServerSANs, n.EtcdPeerSANs}})
	}
	for _, w := range c.Workers {
		worker := ownWorker{Name: w.Name}
		if w.Address.IsValid() {
			worker.Address = w.Address.String()
		}
		d.Workers = append(d.Workers, worker)
	}
	for _, m := range c.EtcdMembers {
		d.Etcd.Members = append(d.Etcd.Members, ownMember{ownWorker{m.Name, m.Address.String()}, ownEtcdSANs{m.ServerSANs, m.PeerSANs}})
	}
	if e := c.ExternalEtcd; e != nil {
		d.Etcd.External = &externalEtcd{Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile}
	}
	for _, u := range c.Users {
		user := ownUser{Name: u.Name, Groups: u.Groups}
		if u.Validity > 0 {
			user.Validity = u.Validity.String()
		}
		d.Users = append(d.Users, user)
	}
	return yaml.Marshal(d)
}

func encodeComponent(c *catalog.Cluster, name string) component {
	var out component
	for _, a := range c.ExtraArgs[name] {
		out.ExtraArgs = append(out.ExtraArgs, arg{a.Name, a.Value, a.Merge})
	}
	for _, v := range c.Pods[name].Volumes {
		out.ExtraVolumes = append(out.ExtraVolumes, hostPathMount{v.Name, v.HostPath, v.MountPath, v.ReadOnly, v.Type})
	}
	for _, e := range c.Pods[name].Env {
		out.ExtraEnvs = append(out.ExtraEnvs, envVar(e))
	}
	return out
}

// FuzzParse holds that whatever is read can be written as kubepki's own
// configuration and is read back as the same cluster, and that whatever is
// refused is refused in one line.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: kubeadm.k8s.io/v1\nkind: ClusterConfiguration\netcd: {external: {endpoints: ['https://a:1']}}\n",
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {name: A}\nlocalAPIEndpoint: {advertiseAddress: 'fd00::1'}\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking: {serviceSubnet: '10.96.0.0/12,fd00::/112'}\n",
		"apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\ncontrolPlanes: [{name: a, address: 10.0.0.1}]\nworkers: [{name: b}]\nusers: [{name: c, groups: [d], validity: 1h}]\netcd: {members: [{name: e, address: 10.0.0.2}]}\n",
		"apiVersion: kubeadm.k8s.io/v1\nkind: ClusterConfiguration\napiServer: {extraEnvs: [{name: a, valueFrom: {fieldRef: {fieldPath: b}}}], extraArgs: [{name: a, value: b, mergeMethod: append}], extraVolumes: [{name: a, hostPath: /a, mountPath: /b}]}\n",
		"--- # c\nkind: a\n---\n", "a: &a [*a]\n", "{}", "\xff",
	} {
		f.Add([]byte(seed))
	}
	// What is written says all that was assumed.
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(catalog.Cluster{}, "AlgorithmAssumed", "ValidityAssumed"),
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := Parse("f", data, Host{})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.File != "f" {
				t.Fatalf("error %v is not a *Error of the file", err)
			}
			return
		}
		text, err := encode(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Parse("g", text, Host{})
		if err != nil {
			t.Fatalf("what was read is refused when written: %v\n%s", err, text)
		}
		if d := cmp.Diff(first, second, same); d != "" {
			t.Fatalf("read -, read again +:\n%s\n%s", d, text)
		}
		if strings.Contains(first.CertificatesDir, "//") {
			t.Fatalf("certificates folder %q is not clean", first.CertificatesDir)
		}
	})
}
