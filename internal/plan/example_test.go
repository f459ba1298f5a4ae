package plan

import (
	"crypto"
	"fmt"
	"log"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Three control planes with etcd on them: etcd's authority is replaced. Which
// components reload what was measured for their versions.
func ExampleRotate() {
	s := shape{controlPlanes: 3, authorities: catalog.Separate, manifests: true}
	nodes, err := provisioned(s)
	if err != nil {
		log.Fatal(err)
	}
	graph := catalog.Wire(nodes)
	k := maker{nil, map[string]crypto.Signer{}}
	p, err := Rotate(graph, Rotation{
		New:     k.replace(graph, catalog.EtcdCA),
		Reloads: Measured(Versions{Kubernetes: "v1.37.2", Etcd: "3.7.3"}),
		At:      at,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(p)
	// Output:
	// 1. accept: trust the new authority beside the old one, everywhere
	//    write    /etc/kubernetes/pki/etcd/ca.crt: 2 certificates on cp1, cp2, cp3
	//    restart  etcd on cp1, cp2, cp3
	//    restart  kube-apiserver on cp1, cp2, cp3
	//    gate     every process that verifies accepts a certificate of the new authority
	// 2. switch: sign with the new authority from now on
	//    write    /etc/kubernetes/pki/etcd/ca.key: a key on cp1, cp2, cp3
	//    write    /etc/kubernetes/pki/etcd/ca.crt: 2 certificates on cp1, cp2, cp3
	//    gate     whatever is signed from now on is signed by the new authority
	// 3. issue: make every credential anew, signed by the new authority
	//    write    /etc/kubernetes/pki/etcd/server.crt: a new leaf on cp1, cp2, cp3
	//    write    /etc/kubernetes/pki/etcd/peer.crt: a new leaf on cp1, cp2, cp3
	//    write    /etc/kubernetes/pki/apiserver-etcd-client.crt: a new leaf on cp1, cp2, cp3
	//    write    /etc/kubernetes/pki/etcd/healthcheck-client.crt: a new leaf on cp1, cp2, cp3
	//    gate     every server presents, and every client shows, a certificate of the new authority
	//    not seen certificates that the certificates API handed out to users and programs, and copies of kubeconfigs elsewhere, are to be made anew
	// 4. drop: trust the new authority alone: its own files
	//    write    /etc/kubernetes/pki/etcd/ca.crt: 1 certificate on cp1, cp2, cp3
	//    restart  etcd on cp1, cp2, cp3
	//    restart  kube-apiserver on cp1, cp2, cp3
	//    gate     no process that verifies accepts a certificate of the old authority
}
