package layout

import (
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// k0sConfiguration has the fields of k0s.yaml that matter to trust
// (k0sproject/k0s pkg/apis/k0s/v1beta1).
type k0sConfiguration struct {
	Spec struct {
		API struct {
			Address         string         `json:"address"`
			ExternalAddress string         `json:"externalAddress"`
			Port            int            `json:"port"`
			SANs            []string       `json:"sans"`
			ExtraArgs       map[string]any `json:"extraArgs"`
		} `json:"api"`
		ControllerManager struct {
			ExtraArgs map[string]any `json:"extraArgs"`
		} `json:"controllerManager"`
		Scheduler struct {
			ExtraArgs map[string]any `json:"extraArgs"`
		} `json:"scheduler"`
		Storage struct {
			Type string `json:"type"`
			Etcd struct {
				PeerAddress     string         `json:"peerAddress"`
				ExtraArgs       map[string]any `json:"extraArgs"`
				ExternalCluster *struct {
					Endpoints      []string `json:"endpoints"`
					CAFile         string   `json:"caFile"`
					ClientCertFile string   `json:"clientCertFile"`
					ClientKeyFile  string   `json:"clientKeyFile"`
				} `json:"externalCluster"`
			} `json:"etcd"`
		} `json:"storage"`
		Network struct {
			ServiceCIDR   string `json:"serviceCIDR"`
			ClusterDomain string `json:"clusterDomain"`
		} `json:"network"`
	} `json:"spec"`
}

// k0sUnits are the flags of k0s' own units.
func (r *nodeReader) k0sUnits() ownSettings {
	s := ownSettings{}
	r.unitSettings("k0s", nil, s)
	return s
}

func (r *nodeReader) isK0s() bool {
	usual := catalog.DistributionNamed(catalog.LayoutK0s).Data
	if r.isFolder(usual+"/pki") || r.exists(usual+"/kubelet.conf") {
		return true
	}
	data := r.apart().k0sUnits().last("data-dir")
	return path.IsAbs(data) && r.isFolder(data+"/pki")
}

func (r *nodeReader) readK0s() {
	d := catalog.DistributionNamed(catalog.LayoutK0s)
	s := r.k0sUnits()
	data, config := d.Data, "/etc/k0s/k0s.yaml"
	if v := s.last("data-dir"); path.IsAbs(v) {
		data = path.Clean(v)
	}
	if v := s.last("config"); path.IsAbs(v) {
		config = v
	}
	a := catalog.Arrangement{Data: data, Exists: r.exists, Partial: []string{
		catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Etcd, catalog.Kubelet,
	}}
	if r.exists(data + "/pki/ca.key") { // only a controller goes by it
		a.Without = r.readK0sConfiguration(config)
	}
	for _, at := range []string{path.Join(data, "kubelet-config.yaml"), "/run/k0s/kubelet/config.yaml"} {
		if r.exists(at) {
			r.configureKubelet(r.component(catalog.Kubelet), at, false)
			break
		}
	}
	d.Arrange(&r.node, a)
	for _, pair := range []string{"admin", "ccm", "scheduler", "konnectivity"} { // the kubeconfigs are made of them at each start
		r.use(catalog.FileUse{Path: path.Join(data, "pki", pair+".crt"), Role: trust.RoleCertificate, Optional: true})
		r.use(catalog.FileUse{Path: path.Join(data, "pki", pair+".key"), Role: trust.RoleKey, Optional: true})
	}
	if r.has(catalog.Etcd) {
		c := r.component(catalog.APIServer)
		catalog.Preset(c, "etcd-servers", "https://127.0.0.1:2379")
		catalog.Preset(c, "etcd-cafile", data+"/pki/etcd/ca.crt")
		catalog.Preset(c, "etcd-certfile", data+"/pki/apiserver-etcd-client.crt")
		catalog.Preset(c, "etcd-keyfile", data+"/pki/apiserver-etcd-client.key")
		// Its own address, which k0s chooses where nobody says it.
		catalog.Preset(r.component(catalog.Etcd), "initial-advertise-peer-urls", "")
	}
	r.finish(d, data)
}

// readK0sConfiguration reads k0s.yaml, and returns the parts that do not run.
func (r *nodeReader) readK0sConfiguration(at string) []string {
	content, err := r.read(at, false)
	if err != nil {
		return nil // k0s goes by its defaults
	}
	var k k0sConfiguration
	if err := decodeYAML(content.Data, &k); err != nil {
		r.notSeen(at, "the configuration was not understood: "+err.Error())
		return nil
	}
	place := r.place(at)
	api := r.component(catalog.APIServer)
	api.Source = place
	if k.Spec.API.Address != "" {
		set(api, "advertise-address", place.In("spec.api.address"), k.Spec.API.Address)
	}
	if k.Spec.API.Port != 0 {
		set(api, "secure-port", place.In("spec.api.port"), strconv.Itoa(k.Spec.API.Port))
	}
	if names := slices.DeleteFunc(append(k.Spec.API.SANs, k.Spec.API.ExternalAddress), func(s string) bool { return s == "" }); len(names) > 0 {
		set(api, "tls-san", place.In("spec.api.sans"), names...)
	}
	if v := k.Spec.Network.ServiceCIDR; v != "" {
		set(api, "service-cluster-ip-range", place.In("spec.network.serviceCIDR"), v)
	}
	for _, c := range []struct {
		component, field string
		args             map[string]any
	}{
		{catalog.APIServer, "spec.api.extraArgs", k.Spec.API.ExtraArgs},
		{catalog.ControllerManager, "spec.controllerManager.extraArgs", k.Spec.ControllerManager.ExtraArgs},
		{catalog.Scheduler, "spec.scheduler.extraArgs", k.Spec.Scheduler.ExtraArgs},
		{catalog.Etcd, "spec.storage.etcd.extraArgs", k.Spec.Storage.Etcd.ExtraArgs},
	} {
		for _, name := range slices.Sorted(maps.Keys(c.args)) {
			part := r.component(c.component)
			part.Source = place
			set(part, name, place.In(c.field+"."+name), fmt.Sprint(c.args[name]))
		}
	}
	return r.k0sStore(place, &k)
}

func (r *nodeReader) k0sStore(place trust.Place, k *k0sConfiguration) []string {
	etcd := k.Spec.Storage.Etcd
	switch e := etcd.ExternalCluster; {
	case k.Spec.Storage.Type == "kine":
		return []string{catalog.Etcd}
	case e != nil:
		api, field := r.component(catalog.APIServer), "spec.storage.etcd.externalCluster."
		set(api, "etcd-servers", place.In(field+"endpoints"), strings.Join(e.Endpoints, ","))
		for flag, f := range map[string]struct{ name, value string }{
			"etcd-cafile": {"caFile", e.CAFile}, "etcd-certfile": {"clientCertFile", e.ClientCertFile}, "etcd-keyfile": {"clientKeyFile", e.ClientKeyFile},
		} {
			if f.value != "" {
				set(api, flag, place.In(field+f.name), f.value)
			}
		}
		return []string{catalog.Etcd}
	case etcd.PeerAddress != "":
		set(r.component(catalog.Etcd), "initial-advertise-peer-urls", place.In("spec.storage.etcd.peerAddress"), "https://"+net.JoinHostPort(etcd.PeerAddress, "2380"))
	}
	return nil
}
