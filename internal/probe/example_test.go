package probe_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/kubepki/kubepki/internal/probe"
)

// A server is seen as it is, whether its certificate is any good or not.
func ExampleLook() {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	seen := probe.Look(context.Background(), server.Listener.Addr().String(), "", probe.Options{})
	fmt.Println(seen.Outcome, seen.Version, seen.Chain[0].DNSNames, seen.AsksClient)
	// Output: answered TLS 1.3 [example.com *.example.com] false
}
