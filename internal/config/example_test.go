package config_test

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/config"
)

// A configuration names its nodes; everything else has kubeadm's defaults.
func Example() {
	c, err := config.Parse("cluster.yaml", []byte(`
apiVersion: kubepki.dev/v1alpha1
kind: Cluster
controlPlanes:
- {name: cp1, address: 10.0.0.11}
`), config.Host{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.ControlPlanes[0].Name, c.ControlPlanes[0].BindPort, c.ServiceSubnet, c.Validity)
	_, err = config.Parse("cluster.yaml", []byte("apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\nworkers: {}\n"), config.Host{})
	fmt.Println(err)
	// Output:
	// cp1 6443 10.96.0.0/12 8760h0m0s
	// cluster.yaml: workers: is a mapping, wanted is a list
}
