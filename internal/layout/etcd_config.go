package layout

import (
	"strconv"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// etcdConfiguration has the fields of etcd's configuration file that matter to
// trust (etcd server/embed/config.go, configJSON and Config).
type etcdConfiguration struct {
	Name                string       `json:"name"`
	ListenPeerURLs      string       `json:"listen-peer-urls"`
	ListenClientURLs    string       `json:"listen-client-urls"`
	ListenMetricsURLs   string       `json:"listen-metrics-urls"`
	AdvertisePeerURLs   string       `json:"initial-advertise-peer-urls"`
	AdvertiseClientURLs string       `json:"advertise-client-urls"`
	InitialCluster      string       `json:"initial-cluster"`
	Client              etcdSecurity `json:"client-transport-security"`
	Peer                etcdSecurity `json:"peer-transport-security"`
}

type etcdSecurity struct {
	CertFile       string `json:"cert-file"`
	KeyFile        string `json:"key-file"`
	ClientCertFile string `json:"client-cert-file"`
	ClientKeyFile  string `json:"client-key-file"`
	CertAuth       bool   `json:"client-cert-auth"`
	TrustedCAFile  string `json:"trusted-ca-file"`
	AutoTLS        bool   `json:"auto-tls"`
}

// configureEtcd reads etcd's configuration file, which makes it pass over all its
// flags and its environment (etcd server/etcdmain/config.go). It tells whether
// the settings are known.
func (r *nodeReader) configureEtcd(c *trust.Component) bool {
	if v, ok := c.Flag("config-file"); !ok || v == "" {
		return true
	}
	at, data, ok := r.readConfiguration(c, "config-file")
	if !ok {
		return false
	}
	var f etcdConfiguration
	if err := decodeYAML(data, &f); err != nil {
		r.refuse(c, at, err)
		// What it would do is not known: only the conflict is said of it.
		*c = trust.Component{Node: c.Node, Name: c.Name, Flags: map[string][]string{}, Conflicts: c.Conflicts}
		return true
	}
	c.Flags, c.Settings = map[string][]string{"config-file": {at}}, map[string]trust.Place{"config-file": c.Setting("config-file")}
	for field, value := range map[string]string{
		"name": f.Name, "listen-peer-urls": f.ListenPeerURLs, "listen-client-urls": f.ListenClientURLs, "listen-metrics-urls": f.ListenMetricsURLs,
		"initial-advertise-peer-urls": f.AdvertisePeerURLs, "advertise-client-urls": f.AdvertiseClientURLs, "initial-cluster": f.InitialCluster,
	} {
		c.Settings[field] = r.place(at).In(field)
		if value != "" {
			c.Flags[field] = []string{value}
		}
	}
	r.setEtcdSecurity(c, at, "client-transport-security", "", f.Client)
	r.setEtcdSecurity(c, at, "peer-transport-security", "peer-", f.Peer)
	return true
}

func (r *nodeReader) setEtcdSecurity(c *trust.Component, at, section, prefix string, s etcdSecurity) {
	for field, value := range map[string]string{
		"cert-file": s.CertFile, "key-file": s.KeyFile, "client-cert-file": s.ClientCertFile, "client-key-file": s.ClientKeyFile, "trusted-ca-file": s.TrustedCAFile,
	} {
		c.Settings[prefix+field] = r.place(at).In(section + "." + field)
		if value != "" {
			c.Flags[prefix+field] = []string{r.seenBy(c, value)}
		}
	}
	auto := catalog.EtcdAutoTLS
	if prefix != "" {
		auto = catalog.EtcdPeerAutoTLS
	}
	for flag, value := range map[string]bool{prefix + "client-cert-auth": s.CertAuth, auto: s.AutoTLS} {
		field := "client-cert-auth"
		if flag == auto {
			field = "auto-tls"
		}
		c.Settings[flag] = r.place(at).In(section + "." + field)
		if value {
			c.Flags[flag] = []string{strconv.FormatBool(value)}
		}
	}
}
