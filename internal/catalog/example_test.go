package catalog_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/kubepki/kubepki/internal/catalog"
)

// What one control-plane node needs.
func ExampleCluster_Entries() {
	c := catalog.Cluster{
		CertificatesDir: catalog.DefaultCertificatesDir, ServiceSubnet: catalog.DefaultServiceSubnet, Shape: catalog.Separate,
		ControlPlanes: []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11"), BindPort: 6443}},
	}
	nodes, err := c.Entries()
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range nodes[0].Entries[:4] {
		fmt.Println(e.Kind, e.Path, e.CommonName, e.Addresses)
	}
	// Output:
	// authority /etc/kubernetes/pki/ca kubernetes []
	// leaf /etc/kubernetes/pki/apiserver kube-apiserver [10.96.0.1 10.0.0.11]
	// leaf /etc/kubernetes/pki/apiserver-kubelet-client kube-apiserver-kubelet-client []
	// authority /etc/kubernetes/pki/front-proxy-ca front-proxy-ca []
}
