package tokengrpc_test

import (
	"log"

	"google.golang.org/grpc"

	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenfile"
	"github.com/kubepki/kubepki/token/tokengrpc"
)

// A server whose handlers find who calls by token.FromContext.
func Example() {
	keys, err := tokenfile.Open(nil, "/etc/kubernetes/pki/sa.pub")
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.Config{Keys: keys, Issuers: []string{"https://kubernetes.default.svc.cluster.local"}, Audiences: []string{"shop"}})
	if err != nil {
		log.Fatal(err)
	}
	grpc.NewServer(grpc.UnaryInterceptor(tokengrpc.Unary(verifier)), grpc.StreamInterceptor(tokengrpc.Stream(verifier)))
}
