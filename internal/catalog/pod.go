package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pod is a static pod of the control plane, on the way to its manifest.
type pod struct {
	cluster   *Cluster
	component string
	command   []string
	address   netip.Addr // of the node
	port      int        // of the apiserver
	// systemTrust are folders with the system's own authorities.
	systemTrust []string
}

// object keeps manifests small: their fields are written once, here.
type object map[string]any

// Figures of k/k cmd/kubeadm/app/util/staticpod/utils.go.
const (
	priorityClass  = "system-node-critical"
	priority       = 2000001000
	startupTimeout = 4 * time.Minute // ControlPlaneComponentHealthCheckTimeout
)

func (p *pod) manifest() object {
	metadata := object{
		"name": p.component, "namespace": "kube-system",
		"labels": object{"component": p.component, "tier": "control-plane"},
	}
	if a := p.annotations(); a != nil {
		metadata["annotations"] = a
	}
	volumes, mounts := p.volumes()
	liveness, readiness, port := p.probePaths()
	container := object{
		"name": p.component, "image": p.image(), "imagePullPolicy": "IfNotPresent",
		"command": p.command, "volumeMounts": mounts,
		"resources":     object{"requests": p.requests()},
		"ports":         []object{{"name": "probe-port", "containerPort": port, "protocol": "TCP"}},
		"livenessProbe": p.probe(liveness, 10, 8, 10),
		"startupProbe":  p.probe(p.startupPath(), 10, p.cluster.startupFailures(), 10),
	}
	if readiness != "" {
		container["readinessProbe"] = p.probe(readiness, 0, 3, 1)
	}
	if env := p.environment(); env != nil {
		container["env"] = env
	}
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": object{},
		"spec": object{
			"containers": []object{container}, "hostNetwork": true,
			"priority": priority, "priorityClassName": priorityClass, "volumes": volumes,
			"securityContext": object{"seccompProfile": object{"type": "RuntimeDefault"}},
		},
	}
}

// annotations tell kubeadm's later runs where a member or apiserver listens.
func (p *pod) annotations() object {
	switch p.component {
	case APIServer:
		return object{"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": hostPort(p.address.String(), p.port)}
	case Etcd:
		return object{"kubeadm.kubernetes.io/etcd.advertise-client-urls": "https://" + hostPort(p.address.String(), EtcdClientPort)}
	}
	return nil
}

func (p *pod) image() string {
	repository := cmp.Or(p.cluster.ImageRepository, DefaultImageRepository)
	if p.component == Etcd {
		return cmp.Or(p.cluster.EtcdImage, repository+"/etcd:"+DefaultEtcdVersion)
	}
	// A + of a version is no character of an image tag.
	tag := strings.ReplaceAll(cmp.Or(p.cluster.KubernetesVersion, DefaultVersion), "+", "_")
	return repository + "/" + p.component + ":" + tag
}

func (p *pod) requests() object {
	switch p.component {
	case Etcd:
		return object{"cpu": "100m", "memory": "100Mi"}
	case APIServer:
		return object{"cpu": "250m"}
	case ControllerManager:
		return object{"cpu": "200m"}
	}
	return object{"cpu": "100m"}
}

// probePaths returns the paths of the liveness and readiness probes (empty:
// none) and the port that they ask.
func (p *pod) probePaths() (liveness, readiness string, port int) {
	switch p.component {
	case Etcd:
		return "/livez", "/readyz", p.etcdProbe().port
	case APIServer:
		return "/livez", "/readyz", p.port
	case ControllerManager:
		return "/healthz", "", ControllerManagerPort
	}
	return "/livez", "/readyz", SchedulerPort
}

// startupFailures counts the probes, one in ten seconds, within the timeout.
func (c *Cluster) startupFailures() int {
	timeout := cmp.Or(c.StartupTimeout, startupTimeout)
	return int(math.Ceil(timeout.Seconds() / 10))
}

func (p *pod) startupPath() string {
	switch p.component {
	case Etcd:
		return "/readyz"
	case ControllerManager:
		return "/healthz"
	}
	return "/livez"
}

func (p *pod) probe(path string, delay, failures, period int) object {
	host, scheme := p.address.String(), "HTTPS"
	switch p.component {
	case Etcd:
		e := p.etcdProbe()
		host, scheme = e.host, e.scheme
	case ControllerManager, Scheduler:
		host = "127.0.0.1"
		if a := p.cluster.lastArg(p.component, "bind-address"); a != nil {
			host = a.Value
		}
	}
	get := object{"path": path, "port": "probe-port", "scheme": scheme}
	if p.component == Etcd || host != "0.0.0.0" && host != "::" {
		get["host"] = host // kubeadm leaves etcd's as it is
	}
	probe := object{"httpGet": get, "timeoutSeconds": 15, "failureThreshold": failures, "periodSeconds": period}
	if delay > 0 {
		probe["initialDelaySeconds"] = delay
	}
	return probe
}

type endpoint struct {
	host, scheme string
	port         int
}

// etcdProbe is where etcd serves its metrics and health, without TLS unless
// the configuration moves it.
func (p *pod) etcdProbe() endpoint {
	e := endpoint{host: loopback(p.address), scheme: "HTTP", port: EtcdMetricsPort}
	a := p.cluster.lastArg(Etcd, "listen-metrics-urls")
	if a == nil {
		return e
	}
	first, _, _ := strings.Cut(a.Value, ",")
	u, err := url.Parse(first)
	if err != nil {
		return e
	}
	if u.Scheme == "https" {
		e.scheme = "HTTPS"
	}
	if u.Hostname() != "" {
		e.host = u.Hostname()
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && n > 0 {
		e.port = int(n)
	}
	return e
}

// volumes returns the volumes and their mounts, sorted by name.
func (p *pod) volumes() (volumes, mounts []object) {
	all := p.hostPaths()
	slices.SortStableFunc(all, func(a, b HostPath) int { return cmp.Compare(a.Name, b.Name) })
	for _, v := range all {
		path := object{"path": v.HostPath}
		if v.Type != "" {
			path["type"] = v.Type
		}
		volumes = append(volumes, object{"name": v.Name, "hostPath": path})
		mount := object{"name": v.Name, "mountPath": v.MountPath}
		if v.ReadOnly {
			mount["readOnly"] = true
		}
		mounts = append(mounts, mount)
	}
	if p.component == Etcd { // kubeadm lists its mounts the other way round
		slices.Reverse(mounts)
	}
	return volumes, mounts
}

func (p *pod) hostPaths() []HostPath {
	const folder, single = "DirectoryOrCreate", "FileOrCreate"
	same := func(name, path, kind string, readOnly bool) HostPath {
		return HostPath{Name: name, HostPath: path, MountPath: path, ReadOnly: readOnly, Type: kind}
	}
	var all []HostPath
	switch p.component {
	case Etcd:
		data := cmp.Or(p.cluster.EtcdDataDir, DefaultEtcdDataDir)
		return []HostPath{same("etcd-data", data, folder, false), same("etcd-certs", p.cluster.PKI("etcd"), folder, false)}
	case Scheduler:
		all = []HostPath{same("kubeconfig", Conf("scheduler.conf"), single, true)}
	case ControllerManager:
		all = []HostPath{same("kubeconfig", Conf("controller-manager.conf"), single, true)}
	}
	if p.component != Scheduler {
		all = append(all, same("k8s-certs", p.cluster.CertificatesDir, folder, true), same("ca-certs", "/etc/ssl/certs", folder, true))
		for _, dir := range p.systemTrust {
			all = append(all, same(strings.ReplaceAll(dir[1:], "/", "-"), dir, folder, true))
		}
	}
	if p.component == APIServer {
		for i, dir := range p.cluster.externalEtcdDirs() {
			all = append(all, same(fmt.Sprintf("etcd-certs-%d", i), dir, folder, true))
		}
	}
	return append(all, p.cluster.Pods[p.component].Volumes...)
}

func (p *pod) environment() []object {
	var env []object
	for _, e := range p.cluster.Pods[p.component].Env {
		v := object{"name": e.Name}
		switch {
		case e.ValueFrom != nil:
			v["valueFrom"] = withFieldVersion(e.ValueFrom)
		case e.Value != "":
			v["value"] = e.Value
		}
		env = append(env, v)
	}
	return env
}

// withFieldVersion fills in a default as kubeadm does (SetDefaults_EnvVar).
func withFieldVersion(from map[string]any) map[string]any {
	field, ok := from["fieldRef"].(map[string]any)
	if !ok || field["apiVersion"] != nil {
		return from
	}
	from, field = maps.Clone(from), maps.Clone(field)
	field["apiVersion"] = "v1"
	from["fieldRef"] = field
	return from
}

// externalEtcdDirs lists the folders of an external etcd's client files that
// no other volume brings in (getEtcdCertVolumes in
// k/k cmd/kubeadm/app/phases/controlplane/volumes.go).
func (c *Cluster) externalEtcdDirs() []string {
	if c.ExternalEtcd == nil {
		return nil
	}
	var dirs []string
	for _, file := range []string{c.ExternalEtcd.CAFile, c.ExternalEtcd.CertFile, c.ExternalEtcd.KeyFile} {
		dir := file[:max(strings.LastIndexByte(file, '/'), 0)]
		if dir == "" || within(dir, "/etc/ssl/certs") || within(dir, c.CertificatesDir) {
			continue
		}
		if slices.ContainsFunc(dirs, func(d string) bool { return within(dir, d) }) {
			continue
		}
		dirs = append(slices.DeleteFunc(dirs, func(d string) bool { return within(d, dir) }), dir)
	}
	slices.Sort(dirs)
	return dirs
}

// within tells whether a folder is, or lies below, another.
func within(dir, above string) bool {
	return dir == above || strings.HasPrefix(dir, strings.TrimSuffix(above, "/")+"/")
}
