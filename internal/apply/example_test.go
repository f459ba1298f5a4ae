package apply_test

import (
	"context"
	"crypto"
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// exampleNode is the credentials of a control plane below a folder.
func exampleNode(made time.Time) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "kubepki-test-"); err != nil {
		return "", err
	}
	cluster, err := config.Complete(&catalog.Cluster{
		Algorithm: string(issue.ECDSAP256), Validity: catalog.DefaultValidity, CAValidity: catalog.DefaultCAValidity,
		ControlPlanes: []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11")}},
	}, config.Host{})
	if err != nil {
		return dir, err
	}
	plan, err := provision.Plan(provision.Options{Cluster: cluster, Dir: dir, Manifests: true, Now: made})
	if err != nil {
		return dir, err
	}
	defer plan.Close()
	return dir, plan.Apply(context.Background(), func() {})
}

// ended is when the API server's certificate of a node ends.
func ended(n *apply.Nodes) string {
	return n.Graph.Material(trust.Place{Path: "/etc/kubernetes/pki/apiserver.crt"}).Leaf().NotAfter.Format(time.DateOnly)
}

// A node's certificate is made anew and written, and then all is as it was.
func ExampleUndo() {
	made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	dir, err := exampleNode(made)
	defer os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
	read := func() *apply.Nodes {
		n, err := apply.ReadNode("", dir)
		if err != nil {
			log.Fatal(err)
		}
		return n
	}
	n, at := read(), made.AddDate(0, 11, 0)
	before := check.Run(n.Graph, check.Options{At: at})
	items, err := renew.Plan(n.Graph, before.Findings, []string{"apiserver"}, renew.Options{At: at, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
	if err != nil {
		log.Fatal(err)
	}
	r, err := apply.Make(context.Background(), n, items, before, at)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ends", ended(n), r.Items[0].TakeUp)
	if err := r.Write(n); err != nil {
		log.Fatal(err)
	}
	n = read()
	fmt.Println("ends", ended(n))
	u, err := apply.Undo(n, apply.Latest, false, check.Run(n.Graph, check.Options{At: at}), at.Add(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	if err := u.Write(n); err != nil {
		log.Fatal(err)
	}
	kept, err := apply.Backups(n)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ends", ended(read()), "and", len(kept), "backups are kept")
	// Output:
	// ends 2027-06-01 [kube-apiserver: by itself, mostly within a second]
	// ends 2028-04-30
	// ends 2027-06-01 and 2 backups are kept
}
