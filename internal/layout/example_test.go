package layout_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

func ExampleBegin() {
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)

	tx, err := layout.Begin(root)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tx.Rollback() // does nothing after Commit
	for _, name := range []string{"front-proxy-ca.crt", "ca.crt"} {
		if err := tx.Write("/etc/kubernetes/pki/"+name, []byte("…"), 0o644); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := tx.Commit(); err != nil {
		fmt.Println(err)
		return
	}
	names, _ := filepath.Glob(filepath.Join(root, "etc/kubernetes/pki/*"))
	for _, n := range names {
		fmt.Println(filepath.Base(n))
	}
	// Output:
	// ca.crt
	// front-proxy-ca.crt
}

func ExampleRead() {
	node, keys, err := layout.Read("testdata/published-cluster/master", layout.Options{Name: "master"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, k := range node.Kubeconfigs {
		fmt.Println(k.Place, "dials", k.Server)
	}
	for _, s := range node.NotSeen {
		fmt.Println(s.Place, "–", s.Reason)
	}
	fmt.Println(len(keys), "private keys at hand")
	// Output:
	// master:/etc/kubernetes/controller-manager.conf dials https://10.0.4.3:6443
	// master:/etc/kubernetes/kubelet.conf dials https://10.0.4.3:6443
	// master:/etc/kubernetes/scheduler.conf dials https://10.0.4.3:6443
	// master:/etc/kubernetes/pki – apiserver-etcd-client.crt, apiserver-etcd-client.key, apiserver-kubelet-client.crt, apiserver-kubelet-client.key and 8 more files: named by the node's configuration, and not in what was given
	// master:/etc/kubernetes/pki/etcd – ca.crt, peer.crt, peer.key, server.crt, server.key: named by the node's configuration, and not in what was given
	// 3 private keys at hand
}

func ExampleParseKubeconfig() {
	place := trust.Place{Path: "/etc/kubernetes/admin.conf"}
	k, _, _ := layout.ParseKubeconfig(place, []byte("current-context: admin@prod\ncontexts: []\n"))
	fmt.Printf("%s: %s: %s\n", k.Place, k.State, k.Reason)
	// Output:
	// /etc/kubernetes/admin.conf: malformed: current-context: there is no context "admin@prod"
}
