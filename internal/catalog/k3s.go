package catalog

import (
	"maps"

	"github.com/kubepki/kubepki/internal/trust"
)

// rancher is k3s or RKE2, which is k3s with the control plane in static pods:
// the files and flags are the same below another folder. Sources, in k3s-io/k3s:
// pkg/daemons/control/deps/deps.go (files, subjects, authorities),
// pkg/daemons/control/server.go (flags of the control plane), pkg/agent/config/config.go
// (an agent's files), pkg/cluster/https.go (the supervisor's certificate),
// pkg/etcd/etcd.go (etcd), pkg/util/services/services.go (services of
// "certificate rotate"); in rancher/rke2: pkg/executor/staticpod, pkg/podtemplate.
func rancher(program string) *Distribution {
	d := &Distribution{
		Name: program, Data: "/var/lib/rancher/" + program,
		Server: rancherServer(program), Node: rancherNode(program),
		Authorities: []AuthorityFile{
			{Name: "client-ca", File: "server/tls/client-ca.crt", Key: "server/tls/client-ca.key", Signs: []string{Clients}},
			{Name: "server-ca", File: "server/tls/server-ca.crt", Key: "server/tls/server-ca.key", Signs: []string{"apiserver", "kubelet-server", Supervisor}},
			{Name: "request-header-ca", File: "server/tls/request-header-ca.crt", Key: "server/tls/request-header-ca.key", Signs: []string{"front-proxy-client"}},
			{Name: "etcd-server-ca", File: "server/tls/etcd/server-ca.crt", Key: "server/tls/etcd/server-ca.key",
				Signs: []string{"etcd-server", "apiserver-etcd-client", "etcd-healthcheck-client"}},
			{Name: "etcd-peer-ca", File: "server/tls/etcd/peer-ca.crt", Key: "server/tls/etcd/peer-ca.key", Signs: []string{"etcd-peer"}},
		},
		NodeAuthorities: []AuthorityFile{
			{Name: "client-ca", File: "agent/client-ca.crt", Key: "agent/client-ca.key", Signs: []string{Clients}},
			{Name: "server-ca", File: "agent/server-ca.crt", Key: "agent/server-ca.key", Signs: []string{"apiserver", "kubelet-server", Supervisor}},
		},
		Ports: []string{"6443", "6444"}, Balanced: true, Fronted: program == "k3s", Chained: true,
		Unseen: []UnseenSource{{"server/db", "the datastore keeps the authorities too, encrypted with the server token, for servers that join: they are not read there"}},
		Mends:  rancherMends(program),
	}
	return d
}

// rancherKubeconfig is a client that is known by its kubeconfig and its pair.
func rancherKubeconfig(name, kubeconfig, pair string) Part {
	return Part{Name: name, Shows: []string{kubeconfig, pair + ".crt", pair + ".key"}, Flags: map[string]string{"kubeconfig": kubeconfig}}
}

func rancherServer(program string) []Part {
	tls, cred := "./server/tls/", "./server/cred/"
	controllerManager := rancherKubeconfig(ControllerManager, cred+"controller.kubeconfig", tls+"client-controller")
	maps.Copy(controllerManager.Flags, map[string]string{
		"root-ca-file": tls + "server-ca.crt", "bind-address": "127.0.0.1", "secure-port": "10257",
		"cluster-signing-kube-apiserver-client-key-file": tls + "client-ca.key", "cluster-signing-kubelet-client-key-file": tls + "client-ca.key",
		"cluster-signing-kubelet-serving-key-file": tls + "server-ca.key", "cluster-signing-legacy-unknown-key-file": tls + "server-ca.key",
	})
	// The first certificate of an authority's file, for the signer wants one alone.
	client := []string{tls + "client-ca.nochain.crt", tls + "client-ca.crt"}
	server := []string{tls + "server-ca.nochain.crt", tls + "server-ca.crt"}
	controllerManager.IfThere = map[string][]string{
		"service-account-private-key-file":                {tls + "service.current.key", tls + "service.key"},
		"cluster-signing-kube-apiserver-client-cert-file": client, "cluster-signing-kubelet-client-cert-file": client,
		"cluster-signing-kubelet-serving-cert-file": server, "cluster-signing-legacy-unknown-cert-file": server,
		"tls-cert-file":        {tls + "kube-controller-manager/kube-controller-manager.crt"},
		"tls-private-key-file": {tls + "kube-controller-manager/kube-controller-manager.key"},
	}
	scheduler := rancherKubeconfig(Scheduler, cred+"scheduler.kubeconfig", tls+"client-scheduler")
	maps.Copy(scheduler.Flags, map[string]string{"bind-address": "127.0.0.1", "secure-port": "10259"})
	scheduler.IfThere = map[string][]string{
		"tls-cert-file": {tls + "kube-scheduler/kube-scheduler.crt"}, "tls-private-key-file": {tls + "kube-scheduler/kube-scheduler.key"},
	}
	parts := []Part{rancherAPIServer(program), controllerManager, scheduler, rancherEtcd(), rancherEtcdctl(),
		rancherKubeconfig(Admin, cred+"admin.kubeconfig", tls+"client-admin"),
		{Name: Supervisor, Shows: []string{tls + "dynamic-cert.json"}, Flags: map[string]string{"dynamic-cert": tls + "dynamic-cert.json"}},
	}
	for _, own := range []struct{ name, kubeconfig, pair, user string }{
		{SupervisorClient, "supervisor.kubeconfig", "client-supervisor", "system:" + program + "-supervisor"},
		{APIServerClient, "api-server.kubeconfig", "client-kube-apiserver", "system:apiserver"},
		{CloudController, "cloud-controller.kubeconfig", "client-" + program + "-cloud-controller", program + "-cloud-controller-manager"},
	} {
		p := rancherKubeconfig(own.name, cred+own.kubeconfig, tls+own.pair)
		p.Shows = p.Shows[:1] // some releases have the pair and no kubeconfig
		p.Want = trust.Identity{Named: true, User: own.user}
		parts = append(parts, p)
	}
	return parts
}

func rancherAPIServer(program string) Part {
	tls := "./server/tls/"
	p := Part{Name: APIServer,
		Shows: []string{tls + "serving-kube-apiserver.crt", tls + "serving-kube-apiserver.key", tls + "service.key", "./server/cred/controller.kubeconfig"},
		Flags: map[string]string{
			"tls-cert-file": tls + "serving-kube-apiserver.crt", "tls-private-key-file": tls + "serving-kube-apiserver.key",
			"client-ca-file": tls + "client-ca.crt", "kubelet-certificate-authority": tls + "server-ca.crt",
			"kubelet-client-certificate": tls + "client-kube-apiserver.crt", "kubelet-client-key": tls + "client-kube-apiserver.key",
			"requestheader-client-ca-file": tls + "request-header-ca.crt", "requestheader-allowed-names": "system:auth-proxy",
			"proxy-client-cert-file": tls + "client-auth-proxy.crt", "proxy-client-key-file": tls + "client-auth-proxy.key",
			"service-account-key-file": tls + "service.key",
			"service-account-issuer":   "https://kubernetes.default.svc.cluster.local",
			"service-cluster-ip-range": "10.43.0.0/16",
			"authorization-mode":       "Node,RBAC", "anonymous-auth": "false",
			"secure-port": "6443",
		},
		IfThere: map[string][]string{"service-account-signing-key-file": {tls + "service.current.key", tls + "service.key"}},
	}
	if program == "k3s" {
		// The supervisor has the port that all others know, and hands on.
		p.Flags["secure-port"], p.Flags["bind-address"] = "6444", "127.0.0.1"
	}
	return p
}

// rancherEtcd is the member embedded in the process, or the static pod. Its pairs
// are made where the datastore is SQLite too; then nothing uses them, and the
// reader says that there is none.
func rancherEtcd() Part {
	tls := "./server/tls/etcd/"
	return Part{Name: Etcd, Shows: []string{"./server/db/etcd", tls + "server-client.crt", tls + "server-client.key"}, Flags: map[string]string{
		"cert-file": tls + "server-client.crt", "key-file": tls + "server-client.key", "trusted-ca-file": tls + "server-ca.crt", "client-cert-auth": "true",
		"peer-cert-file": tls + "peer-server-client.crt", "peer-key-file": tls + "peer-server-client.key", "peer-trusted-ca-file": tls + "peer-ca.crt", "peer-client-cert-auth": "true",
	}}
}

// rancherEtcdctl is the pair that the API server and the supervisor show etcd;
// the documentation has people use it for etcdctl.
func rancherEtcdctl() Part {
	tls := "./server/tls/etcd/"
	return Part{Name: Etcdctl, Shows: []string{tls + "client.crt", tls + "client.key"},
		Flags: map[string]string{"cacert": tls + "server-ca.crt", "cert": tls + "client.crt", "key": tls + "client.key"}}
}

func rancherNode(program string) []Part {
	kubelet := rancherKubeconfig(Kubelet, "./agent/kubelet.kubeconfig", "./agent/client-kubelet")
	kubelet.Shows = append(kubelet.Shows, "./agent/serving-kubelet.crt", "./agent/serving-kubelet.key")
	maps.Copy(kubelet.Flags, map[string]string{
		"client-ca-file": "./agent/client-ca.crt", "tls-cert-file": "./agent/serving-kubelet.crt", "tls-private-key-file": "./agent/serving-kubelet.key",
		"anonymous-auth": "false", "authorization-mode": "Webhook", "read-only-port": "0",
	})
	controller := rancherKubeconfig(NodeController, "./agent/"+program+"controller.kubeconfig", "./agent/client-"+program+"-controller")
	controller.Want = trust.Identity{Named: true, User: "system:" + program + "-controller"}
	return []Part{kubelet, rancherKubeconfig(KubeProxy, "./agent/kubeproxy.kubeconfig", "./agent/client-kube-proxy"), controller}
}

// rancherMends follow "certificate rotate" (pkg/util/services/services.go): the
// files of a service are removed, and made anew at the next start.
func rancherMends(program string) Mends {
	server := program
	if program == "rke2" {
		server = "rke2-server"
	}
	anew := func(service string, files ...string) Mend {
		return Mend{Files: files, Command: "systemctl stop UNIT && " + program + " certificate rotate --service " + service + " && systemctl start UNIT"}
	}
	own := "client-" + program
	return Mends{
		ServerUnit: server, NodeUnit: program + "-agent",
		Anew: []Mend{
			anew("admin", "./server/tls/client-admin.*", "./server/cred/admin.kubeconfig", "/etc/rancher/"+program+"/"+program+".yaml"),
			anew("api-server", "./server/tls/serving-kube-apiserver.*", "./server/tls/client-kube-apiserver.*", "./server/cred/api-server.kubeconfig"),
			anew("controller-manager", "./server/tls/client-controller.*", "./server/cred/controller.kubeconfig", "./server/tls/kube-controller-manager/*"),
			anew("scheduler", "./server/tls/client-scheduler.*", "./server/cred/scheduler.kubeconfig", "./server/tls/kube-scheduler/*"),
			anew("supervisor", "./server/tls/client-supervisor.*", "./server/cred/supervisor.kubeconfig"),
			anew("cloud-controller", "./server/tls/"+own+"-cloud-controller.*", "./server/cred/cloud-controller.kubeconfig"),
			anew("auth-proxy", "./server/tls/client-auth-proxy.*"),
			anew("etcd", "./server/tls/etcd/client.*", "./server/tls/etcd/server-client.*", "./server/tls/etcd/peer-server-client.*"),
			anew(program+"-server", "./server/tls/dynamic-cert.json"),
			anew("kubelet", "./agent/client-kubelet.*", "./agent/serving-kubelet.*", "./agent/kubelet.kubeconfig"),
			anew("kube-proxy", "./agent/client-kube-proxy.*", "./agent/kubeproxy.kubeconfig"),
			anew(program+"-controller", "./agent/"+own+"-controller.*", "./agent/"+program+"controller.kubeconfig"),
			{Files: []string{"./agent/client-ca.crt", "./agent/server-ca.crt"}, Command: "systemctl restart UNIT # at each start it gets this file from the server", Always: true},
			{Files: []string{"./server/tls/*.nochain.crt", "./server/tls/service.current.key"}, Command: "systemctl restart UNIT # at each start it writes this file anew", Always: true},
		},
		Authority: program + " certificate rotate-ca --path FOLDER, with the new authorities in FOLDER; then restart each server, and after them each agent",
		// It compares key identifiers at each start (fieldsChanged in deps.go).
		Leaves:  "restart " + server + " on each server, and then " + program + "-agent on each agent: at the start they make and get what is not of the authority that is there",
		Restart: "systemctl restart UNIT",
	}
}
