package layout

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

func (r *nodeReader) isK3s() bool  { return r.isRancher(catalog.LayoutK3s) }
func (r *nodeReader) isRKE2() bool { return r.isRancher(catalog.LayoutRKE2) }
func (r *nodeReader) readK3s()     { r.readRancher(catalog.LayoutK3s) }
func (r *nodeReader) readRKE2()    { r.readRancher(catalog.LayoutRKE2) }

// isRancher tells whether k3s, or RKE2, has been started on the node.
func (r *nodeReader) isRancher(program string) bool {
	// The settings are only needed where the data folder is not the usual one.
	usual := catalog.DistributionNamed(program).Data
	if r.isFolder(usual+"/server/tls") || r.isFolder(usual+"/agent") {
		return true
	}
	if !r.exists("/etc/rancher/" + program) {
		return false
	}
	data := r.apart().rancherSettings(program).last("data-dir")
	return path.IsAbs(data) && (r.isFolder(data+"/server/tls") || r.isFolder(data+"/agent"))
}

// rancherSettings are the keys of config.yaml, of its drop-ins, and of the
// command line of the unit (k3s-io/k3s pkg/configfilearg).
func (r *nodeReader) rancherSettings(program string) ownSettings {
	s := ownSettings{}
	folder := "/etc/rancher/" + program
	if r.exists(folder + "/config.yaml") {
		r.readKeys(folder+"/config.yaml", s)
	}
	names, _ := r.list(folder + "/config.yaml.d")
	for _, name := range names {
		if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
			r.readKeys(path.Join(folder, "config.yaml.d", name), s)
		}
	}
	prefix := strings.ToUpper(program) + "_"
	r.unitSettings(program, map[string]string{prefix + "DATA_DIR": "data-dir", prefix + "NODE_NAME": "node-name", prefix + "KUBECONFIG_OUTPUT": "write-kubeconfig",
		prefix + "DATASTORE_ENDPOINT": "datastore-endpoint"}, s)
	return s
}

func (r *nodeReader) readRancher(program string) {
	d := catalog.DistributionNamed(program)
	s := r.rancherSettings(program)
	data := d.Data
	if v := s.last("data-dir"); path.IsAbs(v) {
		data = path.Clean(v)
	}
	r.node.NodeName = strings.ToLower(s.last("node-name"))
	a := catalog.Arrangement{Data: data, Exists: r.exists}
	r.readPods(path.Join(data, "agent/pod-manifests"))
	if !r.readEmbeddedEtcd(path.Join(data, "server/db/etcd/config")) {
		a.Partial = append(a.Partial, catalog.Etcd) // a static pod that names a file which is not here
	}
	for _, key := range []struct{ component, key string }{
		{catalog.APIServer, "kube-apiserver-arg"}, {catalog.ControllerManager, "kube-controller-manager-arg"}, {catalog.Scheduler, "kube-scheduler-arg"},
	} {
		if !r.has(key.component) && r.exists(data+"/server/tls") { // a static pod has them already
			r.addArguments(key.component, s[key.key])
			a.Partial = append(a.Partial, key.component)
		}
	}
	r.readKubeletFolder(path.Join(data, "agent/etc/kubelet.conf.d"))
	for _, key := range []struct{ component, key string }{{catalog.Kubelet, "kubelet-arg"}, {catalog.KubeProxy, "kube-proxy-arg"}} {
		r.addArguments(key.component, s[key.key])
		a.Partial = append(a.Partial, key.component)
	}
	a.Without = r.rancherWithout(s, data)
	r.use(catalog.FileUse{Path: rancherKubeconfig(program, s), Role: catalog.RoleKubeconfig, Optional: true})
	d.Arrange(&r.node, a)
	if r.has(catalog.APIServer) {
		r.addRancherServer(program, s, data)
	}
	r.finish(d, data)
}

func rancherKubeconfig(program string, s ownSettings) string {
	if v := s.last("write-kubeconfig"); path.IsAbs(v) {
		return v
	}
	return "/etc/rancher/" + program + "/" + program + ".yaml"
}

// rancherWithout are the parts of a server that the configuration turns off, and
// etcd where the datastore is another: its pairs are made all the same.
func (r *nodeReader) rancherWithout(s ownSettings, data string) []string {
	var off []string
	for _, p := range []struct{ key, component string }{
		{"disable-apiserver", catalog.APIServer}, {"disable-controller-manager", catalog.ControllerManager}, {"disable-scheduler", catalog.Scheduler},
		{"disable-kube-proxy", catalog.KubeProxy}, {"disable-cloud-controller", catalog.CloudController},
	} {
		if s.on(p.key) {
			off = append(off, p.component)
		}
	}
	etcd := r.exists(data+"/server/db/etcd") || r.has(catalog.Etcd)
	if !etcd && (r.exists(data+"/server/db") || s.last("datastore-endpoint") != "" || s.on("disable-etcd")) {
		off = append(off, catalog.Etcd)
		if !s.on("disable-etcd") { // the members are on other nodes
			off = append(off, catalog.Etcdctl)
		}
	}
	return off
}

// addRancherServer gives the API server what the node's configuration says and
// what follows from it.
func (r *nodeReader) addRancherServer(program string, s ownSettings, data string) {
	c := r.component(catalog.APIServer)
	if names := s["tls-san"]; len(names.values) > 0 {
		set(c, "tls-san", names.at, listOf(names.values)...)
	}
	if strings.HasPrefix(c.Source.Path, data) {
		return // a static pod, which has all of its flags
	}
	if at := s.first("advertise-address", "node-external-ip", "node-ip"); len(at.values) > 0 {
		set(c, "advertise-address", at.at, listOf(at.values)[0])
	}
	if program == catalog.LayoutK3s {
		port := "6443"
		if v := s.last("https-listen-port"); v != "" {
			port = v
		}
		catalog.Preset(c, "advertise-port", port)
	}
	if v := s["service-cidr"]; len(v.values) > 0 {
		set(c, "service-cluster-ip-range", v.at, strings.Join(v.values, ","))
	}
	if v := s.last("cluster-domain"); v != "" {
		set(c, "service-account-issuer", s["cluster-domain"].at, "https://kubernetes.default.svc."+v)
	}
	r.addRancherStore(c, s, data)
}

// addRancherStore gives the API server the flags of its datastore. What is no
// etcd is reached through kine, over a socket of the node.
func (r *nodeReader) addRancherStore(c *trust.Component, s ownSettings, data string) {
	if endpoint := s["datastore-endpoint"]; len(endpoint.values) > 0 {
		u, err := url.Parse(strings.Split(endpoint.values[0], ",")[0])
		if err != nil || u.Scheme != "https" && u.Scheme != "http" {
			return // its address may hold a password
		}
		set(c, "etcd-servers", endpoint.at, endpoint.values[0])
		for flag, key := range map[string]string{"etcd-cafile": "datastore-cafile", "etcd-certfile": "datastore-certfile", "etcd-keyfile": "datastore-keyfile"} {
			set(c, flag, s[key].at, s[key].values...)
		}
		return
	}
	if !r.has(catalog.Etcd) && !r.has(catalog.Etcdctl) {
		return
	}
	tls := path.Join(data, "server/tls/etcd")
	catalog.Preset(c, "etcd-servers", "https://127.0.0.1:2379")
	catalog.Preset(c, "etcd-cafile", tls+"/server-ca.crt")
	catalog.Preset(c, "etcd-certfile", tls+"/client.crt")
	catalog.Preset(c, "etcd-keyfile", tls+"/client.key")
}

// listOf splits values that may be lists with commas.
func listOf(values []string) []string {
	var all []string
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

// readEmbeddedEtcd reads the file that k3s and RKE2 write for their etcd
// at each start, and tells whether it could.
func (r *nodeReader) readEmbeddedEtcd(at string) bool {
	if !r.exists(at) {
		return false
	}
	c := r.component(catalog.Etcd)
	c.Source = r.place(at)
	set(c, "config-file", c.Source, at)
	return r.configureEtcd(c)
}

// readKubeletFolder reads the kubelet's drop-in folder (--config-dir), where
// k3s puts its defaults into the first file. A later file wins; the last one is
// where a setting would be added.
func (r *nodeReader) readKubeletFolder(folder string) {
	names, _ := r.list(folder)
	names = slices.DeleteFunc(names, func(name string) bool { return path.Ext(name) != ".conf" })
	if len(names) == 0 {
		return
	}
	c := r.component(catalog.Kubelet)
	set(c, "config-dir", r.place(folder), folder)
	r.configureKubelet(c, "", false)
	c.Source = r.place(path.Join(folder, names[len(names)-1]))
}

// readDynamic reads the certificate that the supervisor serves, from the Secret
// that it caches as JSON.
func (r *nodeReader) readDynamic() {
	i := slices.IndexFunc(r.node.Components, func(c trust.Component) bool { return c.Name == catalog.Supervisor })
	if i < 0 {
		return
	}
	at, _ := r.node.Components[i].Flag("dynamic-cert")
	if slices.ContainsFunc(r.node.Materials, func(m *trust.Material) bool { return m.Place.Path == at }) {
		return
	}
	place := r.place(at)
	content, err := r.read(at, true)
	if err != nil {
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: place, Role: trust.RoleCombined, State: err.State, Reason: err.Reason})
		return
	}
	r.telling[path.Dir(at)] = true
	var secret struct {
		Data map[string]string `json:"data"`
	}
	if json.Unmarshal(content.Data, &secret) != nil || secret.Data["tls.crt"] == "" || secret.Data["tls.key"] == "" {
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: place, Role: trust.RoleCombined, State: trust.Malformed, Reason: "is no Secret in JSON with tls.crt and tls.key"})
		return
	}
	for _, part := range []struct {
		field, key string
		role       trust.Role
	}{{catalog.DynamicCertificate, "tls.crt", trust.RoleCertificate}, {catalog.DynamicKey, "tls.key", trust.RoleKey}} {
		pem, _ := base64.StdEncoding.DecodeString(secret.Data[part.key])
		m, key := ParseMaterial(place.In(part.field), part.role, pem)
		r.node.Materials = append(r.node.Materials, m)
		if key != nil {
			maps.Copy(r.keys, Keyring{m.Place: key})
		}
	}
}
