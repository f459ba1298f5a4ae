package csr_test

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/csr"
)

// A node asks to serve under its own name, and under that of the API server.
func Example() {
	w := serving()
	w.shape.names = []name{dns("w1"), dns("kubernetes.default.svc")}
	request := w.request
	request.PEM = encode(w.shape.der())

	nodes := csr.NewInventory(csr.Node{Name: "w1", Names: []string{"w1", "kubernetes.default.svc"}, Addresses: []string{"192.0.2.11"}})
	review := csr.Decide(request, csr.Facts{Nodes: nodes, Landed: true}, csr.DefaultPolicy())
	fmt.Println(review.Verdict)
	for _, reason := range review.Reasons {
		fmt.Println(reason.ID+":", reason.Message)
	}
	// Output:
	// Deny
	// san-in-cluster: "kubernetes.default.svc" is a name of the cluster's services
}
