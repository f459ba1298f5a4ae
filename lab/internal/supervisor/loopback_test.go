package supervisor

import (
	"net/netip"
	"net/url"
	"slices"
	"testing"

	"github.com/kubepki/kubepki/lab"
)

func TestOnLoopbackAComponentKeepsToItsNode(t *testing.T) {
	rows := map[string]struct{ argument, want string }{
		"a file of the node":            {"--client-ca-file=/etc/kubernetes/pki/ca.crt", "--client-ca-file=/n/etc/kubernetes/pki/ca.crt"},
		"the data of etcd":              {"--data-dir=/var/lib/etcd", "--data-dir=/n/var/lib/etcd"},
		"several files":                 {"--service-account-key-file=/etc/kubernetes/a,/etc/kubernetes/b", "--service-account-key-file=/n/etc/kubernetes/a,/n/etc/kubernetes/b"},
		"the loopback address":          {"--bind-address=127.0.0.1", "--bind-address=127.77.0.12"},
		"two URLs that become the same": {"--listen-client-urls=https://127.0.0.1:2379,https://127.77.0.12:2379", "--listen-client-urls=https://127.77.0.12:2379"},
		"a flag without a value":        {"--enable-bootstrap-token-auth", "--enable-bootstrap-token-auth"},
		"a value that only looks like":  {"--service-cluster-ip-range=10.96.0.0/12", "--service-cluster-ip-range=10.96.0.0/12"},
	}
	address := netip.MustParseAddr("127.77.0.12")
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if got := localArgument(row.argument, "/n", address); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
	m := &lab.Manifest{Name: "kube-apiserver", Command: []string{"kube-apiserver"}, Probe: &url.URL{Host: "127.0.0.1:6443"}}
	onLoopback(m, "/n", address)
	if !slices.Contains(m.Command, "--bind-address=127.77.0.12") || m.Probe.Host != "127.77.0.12:6443" {
		t.Errorf("%v, probed at %s", m.Command, m.Probe.Host)
	}
}
