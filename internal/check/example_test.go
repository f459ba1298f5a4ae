package check_test

import (
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// A node whose scheduler.conf is gone while the controller-manager's is there.
func ExampleRun() {
	conf := func(name string) trust.Place { return trust.Place{Path: catalog.Conf(name)} }
	node := trust.Node{
		Components: []trust.Component{{Name: catalog.Scheduler, Flags: map[string][]string{"kubeconfig": {catalog.Conf("scheduler.conf")}}}},
		Kubeconfigs: []trust.Kubeconfig{
			{Place: conf("scheduler.conf"), State: trust.Missing, Reason: "does not exist"},
		},
	}
	r := check.Run(catalog.Wire([]trust.Node{node}), check.Options{At: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)})
	for _, f := range r.Findings {
		fmt.Println(f.Severity, f.ID, f.Path, f.Links)
	}
	// Output:
	// error file-missing /etc/kubernetes/scheduler.conf [6]
}
