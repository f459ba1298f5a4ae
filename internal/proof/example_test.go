package proof_test

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/trust"
)

// Facts are read, wired into a graph, judged, and then proved with the keys,
// which were kept apart.
func ExampleProve() {
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := os.MkdirAll(root+"/etc/kubernetes/pki", 0o755); err != nil {
		log.Fatal(err)
	}
	node, keys, err := layout.Read(root, layout.Options{Name: "cp1"})
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	graph := catalog.Wire([]trust.Node{node})
	result := check.Run(graph, check.Options{At: now})
	contradictions, err := proof.Prove(graph, result.Links, proof.Keys(keys), now)
	fmt.Println(result.Healthy(), len(contradictions), err)
	// Output: true 0 <nil>
}
