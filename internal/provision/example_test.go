package provision_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/provision"
)

// The credentials of one node are made, and found complete the second time.
func Example() {
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cluster, err := config.Complete(&catalog.Cluster{
		Algorithm: "ECDSA-P256", Validity: time.Hour, CAValidity: 2 * time.Hour,
		ControlPlanes: []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11")}},
	}, config.Host{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		plan, err := provision.Plan(provision.Options{Cluster: cluster, Dir: dir, Now: time.Now()})
		if err != nil {
			fmt.Println(err)
			return
		}
		e := plan.Nodes[0].Entries[1]
		fmt.Println(e.Name, e.Path, e.Action, plan.Pending())
		if err := plan.Apply(context.Background(), nil); err != nil {
			fmt.Println(err)
			return
		}
	}
	// Output:
	// apiserver /etc/kubernetes/pki/apiserver made 27
	// apiserver /etc/kubernetes/pki/apiserver kept 0
}
