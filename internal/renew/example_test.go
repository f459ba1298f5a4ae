package renew_test

import (
	"context"
	"crypto"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
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

// What is due on a node eleven months after it was made, and what the API server's
// certificate would be.
func ExampleDue() {
	made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	dir, err := exampleNode(made)
	defer os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
	node, keys, err := layout.Read(dir, layout.Options{})
	if err != nil {
		log.Fatal(err)
	}
	at := made.AddDate(0, 11, 0)
	g := catalog.Wire([]trust.Node{node})
	items, left := renew.Due(g, check.Run(g, check.Options{At: at}).Findings, renew.Options{
		At: at, Keys: func(p trust.Place) crypto.Signer { return keys[p] },
	})
	fmt.Println(len(items), "are due,", len(left), "of them cannot be renewed here")
	for _, i := range items {
		if i.Name != "apiserver" {
			continue
		}
		made, err := i.Make(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		id, _, _ := strings.Cut(i.Why[0], ":")
		fmt.Println(i.Name, id, i.Algorithm, i.Old.NotAfter.Format(time.DateOnly), "→", made.Chain[0].NotAfter.Format(time.DateOnly))
	}
	// Output:
	// 12 are due, 0 of them cannot be renewed here
	// apiserver ends-soon ECDSA-P256 2027-06-01 → 2028-04-30
}
