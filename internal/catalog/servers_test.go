package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

func component(name string, flags ...string) trust.Component {
	c := trust.Component{Node: "cp1", Name: name, Source: trust.Place{Node: "cp1", Path: "/etc/kubernetes/manifests/" + name + ".yaml"}, Flags: map[string][]string{}}
	for _, f := range flags {
		flag, value, _ := strings.Cut(f, "=")
		c.Flags[flag] = append(c.Flags[flag], value)
	}
	return c
}

// conf is a kubeconfig that dials a server.
func conf(name, server string) trust.Kubeconfig {
	return trust.Kubeconfig{Place: trust.Place{Node: "cp1", Path: "/etc/kubernetes/" + name}, State: trust.Present, Server: server, HasToken: true, Cluster: "c"}
}

// TestServersAreDialledWhereTheyListen, by their flags, and loopback by its own
// node alone.
func TestServersAreDialledWhereTheyListen(t *testing.T) {
	const loopback = " (listens on 127.0.0.1 alone, which only its own node can dial)"
	for name, row := range map[string]struct {
		node trust.Node
		want []string
	}{
		"a control plane of kubeadm": {trust.Node{Components: []trust.Component{
			component("etcd", "cert-file=/a", "peer-cert-file=/b", "advertise-client-urls=https://10.0.0.11:2379", "listen-client-urls=https://127.0.0.1:2379,https://10.0.0.11:2379", "listen-peer-urls=https://10.0.0.11:2380"),
			component("kube-apiserver", "advertise-address=10.0.0.11", "secure-port=7443"),
			component("kube-controller-manager", "bind-address=127.0.0.1"),
			component("kube-scheduler", "bind-address=0.0.0.0", "secure-port=10260"),
			component("kubelet"),
		}}, []string{"etcd 10.0.0.11:2379", "etcd-peer 10.0.0.11:2380", "apiserver 10.0.0.11:7443", "kubelet 10.0.0.11:10250", "metrics 127.0.0.1:10257" + loopback, "metrics 10.0.0.11:10260"}},
		"in IPv6": {trust.Node{Components: []trust.Component{
			component("etcd", "cert-file=/a", "listen-client-urls=https://[::]:2379,https://[fd00::11]:2379"),
			component("kube-apiserver", "advertise-address=fd00::11"),
		}}, []string{"etcd [fd00::11]:2379", "apiserver [fd00::11]:6443"}},
		"an apiserver that listens on one address": {trust.Node{Components: []trust.Component{component("kube-apiserver", "bind-address=192.168.0.1", "advertise-address=10.0.0.11")}},
			[]string{"apiserver 192.168.0.1:6443"}},
		"an apiserver of which nothing is known": {trust.Node{Components: []trust.Component{component("kube-apiserver")}}, []string{"apiserver  (no file tells its address)"}},
		"the same on its own node":               {trust.Node{Live: true, Components: []trust.Component{component("kube-apiserver")}}, []string{"apiserver 127.0.0.1:6443"}},
		"loopback on its own node": {trust.Node{Live: true, Components: []trust.Component{component("kube-scheduler", "bind-address=127.0.0.1")}},
			[]string{"metrics 127.0.0.1:10259"}},
		"a port that is off":      {trust.Node{Components: []trust.Component{component("kube-scheduler", "secure-port=0")}}, nil},
		"etcd without TLS":        {trust.Node{Components: []trust.Component{component("etcd", "listen-client-urls=http://10.0.0.11:2379")}}, nil},
		"etcd listens everywhere": {trust.Node{Components: []trust.Component{component("etcd", "cert-file=/a", "listen-client-urls=https://0.0.0.0:2379")}}, []string{"etcd  (no file tells its address)"}},
		"a kubelet with an address and port of its own": {trust.Node{Components: []trust.Component{component("kubelet", "address=10.1.0.1", "port=11250")}},
			[]string{"kubelet 10.1.0.1:11250"}},
		"a balancer before the apiserver": {trust.Node{Components: []trust.Component{component("kube-apiserver", "advertise-address=10.0.0.11"), component("kubelet", "kubeconfig=/etc/kubernetes/kubelet.conf"), component("admin", "kubeconfig=/etc/kubernetes/admin.conf")},
			Kubeconfigs: []trust.Kubeconfig{conf("kubelet.conf", "https://api.test"), conf("admin.conf", "https://10.0.0.11:6443")}},
			[]string{"apiserver 10.0.0.11:6443", "kubelet 10.0.0.11:10250", "endpoint api.test:443"}},
		"a worker alone": {trust.Node{Components: []trust.Component{component("kubelet", "kubeconfig=/etc/kubernetes/kubelet.conf")}, Kubeconfigs: []trust.Kubeconfig{conf("kubelet.conf", "https://api.test:6443")}},
			[]string{"kubelet  (no file tells its address)", "endpoint api.test:6443"}},
		"etcd elsewhere": {trust.Node{Components: []trust.Component{component("kube-apiserver", "advertise-address=10.0.0.11", "etcd-servers=https://10.0.0.31:2379,https://10.0.0.32:2379,https://127.0.0.1:2379", "etcd-certfile=/c", "etcd-keyfile=/k")}},
			[]string{"apiserver 10.0.0.11:6443", "etcd-other 10.0.0.31:2379", "etcd-other 10.0.0.32:2379"}},
	} {
		t.Run(name, func(t *testing.T) {
			row.node.Name = "cp1"
			var got []string
			for _, s := range catalog.Servers(catalog.Wire([]trust.Node{row.node})) {
				text := fmt.Sprintf("%s %s", s.Kind, s.Address)
				if s.Skip != "" {
					text += " (" + s.Skip + ")"
				}
				got = append(got, text)
				if len(s.Settings) == 0 {
					t.Errorf("%s: nothing says so", text)
				}
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
