package cluster_test

import (
	"strings"
	"testing"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

const configuration = `apiVersion: kubepki.dev/v1alpha1
kind: Cluster
kubernetesVersion: v1.37.2
controlPlaneEndpoint: api.example.test:7443
controlPlanes:
- {name: north, address: 192.168.5.11}
- {name: south, address: 192.168.5.12}
workers:
- {name: w1, address: 10.77.0.21}
etcd:
  members:
  - {name: e1, address: 192.168.5.31}
`

// machines are the machines of a cluster as NAME=ADDRESS:COMPONENTS.
func machines(t *testing.T, w cluster.Wanted) []string {
	t.Helper()
	c, err := w.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range cluster.Machines(c) {
		all = append(all, m.Name+"="+m.Address.String()+":"+strings.Join(m.Static, ","))
	}
	return all
}

func TestWhatIsAskedForBecomesMachines(t *testing.T) {
	const plane = "kube-apiserver,kube-controller-manager,kube-scheduler"
	rows := map[string]struct {
		wanted cluster.Wanted
		want   []string
	}{
		"nothing is one control plane": {cluster.Wanted{}, []string{"cp1=10.77.0.11:etcd," + plane}},
		"several control planes have a load balancer": {cluster.Wanted{ControlPlanes: 3, Workers: 1}, []string{
			"cp1=10.77.0.11:etcd," + plane, "cp2=10.77.0.12:etcd," + plane, "cp3=10.77.0.13:etcd," + plane, "w1=10.77.0.21:", "lb=10.77.0.10:",
		}},
		"a configuration has its own nodes, and more workers get free names and addresses": {
			cluster.Wanted{ConfigName: "c.yaml", Config: []byte(configuration), Workers: 1}, []string{
				"e1=192.168.5.31:etcd", "north=192.168.5.11:" + plane, "south=192.168.5.12:" + plane, "w1=10.77.0.21:", "w2=10.77.0.22:", "lb=10.77.0.10:",
			}},
		"without namespaces control planes are on loopback, and nobody else": {
			cluster.Wanted{Loopback: true, WithoutKubelets: true, ControlPlanes: 1, Workers: 5}, []string{"cp1=127.77.0.11:etcd," + plane}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if got := machines(t, row.wanted); strings.Join(got, "\n") != strings.Join(row.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(row.want, "\n"))
			}
		})
	}
}

func TestTheNameOfTheEndpointIsResolvedOnEachMachine(t *testing.T) {
	c, err := cluster.Wanted{ConfigName: "c.yaml", Config: []byte(configuration)}.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	listen, behind, ok := cluster.Endpoint(c)
	if !ok || listen != "10.77.0.10:7443" || strings.Join(behind, " ") != "192.168.5.11:6443 192.168.5.12:6443" {
		t.Errorf("the endpoint is %q before %q, %t", listen, behind, ok)
	}
	hosts := cluster.Hosts(c)
	for name, address := range map[string]string{"api.example.test": "10.77.0.10", "north": "192.168.5.11", "w1": "10.77.0.21"} {
		if hosts[name].String() != address {
			t.Errorf("%s is %s, want %s", name, hosts[name], address)
		}
	}
}

func TestTheLoadBalancerHasAnAddressThatNobodyElseHas(t *testing.T) {
	config := strings.Replace(configuration, "192.168.5.12", "10.77.0.10", 1)
	c, err := cluster.Wanted{ConfigName: "c.yaml", Config: []byte(config)}.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	if listen, _, ok := cluster.Endpoint(c); !ok || listen != "10.77.0.11:7443" {
		t.Errorf("the endpoint is %q, %t", listen, ok)
	}
}

func TestAnEndpointThatIsAControlPlaneNeedsNoLoadBalancer(t *testing.T) {
	config := strings.Replace(configuration, "api.example.test:7443", "192.168.5.11:6443", 1)
	c, err := cluster.Wanted{ConfigName: "c.yaml", Config: []byte(config)}.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	if listen, _, ok := cluster.Endpoint(c); ok {
		t.Errorf("a load balancer listens at %s", listen)
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	rows := map[string]struct {
		wanted cluster.Wanted
		say    string
	}{
		"two control planes, which lose etcd's majority with one": {cluster.Wanted{ControlPlanes: 2}, "--control-planes 2"},
		"fewer than no nodes":                 {cluster.Wanted{Workers: -1}, "--nodes -1"},
		"more nodes than a machine could run": {cluster.Wanted{Workers: 1000}, "--nodes 1000"},
		"fewer than no light nodes":           {cluster.Wanted{LightNodes: -1}, "--light-nodes -1"},
		"a configuration and control planes":  {cluster.Wanted{ConfigName: "c.yaml", Config: []byte(configuration), ControlPlanes: 3}, "c.yaml"},
		"a configuration without namespaces":  {cluster.Wanted{ConfigName: "c.yaml", Config: []byte(configuration), Loopback: true}, "need namespaces"},
		"a node among the addresses of services": {
			cluster.Wanted{ConfigName: "c.yaml", Config: []byte(strings.Replace(configuration, "192.168.5.12", "10.99.0.12", 1))}, "among those of the services"},
		"a node with the lab's own address": {
			cluster.Wanted{ConfigName: "c.yaml", Config: []byte(strings.Replace(configuration, "192.168.5.12", "10.77.0.254", 1))}, "the lab itself and node south"},
		"an endpoint at a control plane, but not at its port": {
			cluster.Wanted{ConfigName: "c.yaml", Config: []byte(strings.Replace(configuration, "api.example.test", "192.168.5.12", 1))}, "are both 192.168.5.12"},
		"a node with the load balancer's name": {
			cluster.Wanted{ConfigName: "c.yaml", Config: []byte(strings.Replace(configuration, "name: south", "name: lb", 1))}, "are both lb"},
		"an etcd that is somebody else's": {cluster.Wanted{ConfigName: "k.yaml", Config: []byte(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
etcd:
  external: {endpoints: ["https://192.0.2.1:2379"], caFile: /a, certFile: /b, keyFile: /c}
`)}, "the lab cannot reach an etcd outside"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if _, err := row.wanted.Cluster(); err == nil || !strings.Contains(err.Error(), row.say) {
				t.Errorf("error %v, want one with %q", err, row.say)
			}
		})
	}
}

// What the user configures stays as it is.
func TestFlagsOfTheConfigurationAreNotReplaced(t *testing.T) {
	config := `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  extraArgs:
  - {name: enable-aggregator-routing, value: "false"}
`
	c, err := cluster.Wanted{ConfigName: "k.yaml", Config: []byte(config)}.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	command, err := c.Command("kube-apiserver", &c.ControlPlanes[0])
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(command, " ")
	if strings.Count(all, "enable-aggregator-routing") != 1 || !strings.Contains(all, "--enable-aggregator-routing=false") {
		t.Errorf("%s", all)
	}
	if !strings.Contains(all, "--kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt") {
		t.Errorf("kubelets are not verified: %s", all)
	}
}
