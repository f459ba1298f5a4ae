package mtlsgrpc_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

// A service that knows who calls, and a client that knows the service, both with
// credentials that change while they run.
func Example() {
	its, mine := exampleSources() // in a program: mtls.OpenFiles

	guard := &mtlsgrpc.Guard{Source: its, Allow: mtls.InGroup("tills"), Again: 10 * time.Second, Log: slog.New(slog.DiscardHandler)}
	server := grpc.NewServer(
		grpc.Creds(mtlsgrpc.ServerCredentials(its, mtls.RequireClients, nil)),
		grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream),
	)
	grpc_testing.RegisterTestServiceServer(server, hello{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Stop()

	for _, source := range mine {
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(source, nil)))
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		answer, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(context.Background(), &grpc_testing.SimpleRequest{})
		fmt.Printf("%v: %s%s\n", status.Code(err), answer.GetUsername(), status.Convert(err).Message())
	}
	// Output:
	// OK: hello till-1
	// PermissionDenied: not allowed
}

type hello struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (hello) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	client, _ := mtls.FromContext(ctx)
	return &grpc_testing.SimpleResponse{Username: "hello " + client.Certificate.Subject.CommonName}, nil
}

// Connections of clients that are no longer good are closed, whatever goes on in
// them.
func ExampleServerCredentials_connections() {
	source, err := mtls.OpenFiles(mtls.Files{Certificate: "server.crt", Key: "server.key", Bundle: "ca.crt"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	connections := mtls.NewConnections(source, nil)
	go connections.Run(context.Background(), 10*time.Second)

	listener, err := net.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(mtlsgrpc.ServerCredentials(source, mtls.RequireClients, nil)))
	log.Fatal(server.Serve(connections.Listener(listener)))
}

// exampleSources are what a server and two clients would have in files.
func exampleSources() (server mtls.Source, clients []mtls.Source) {
	ca := tlstest.Authority(tlstest.Panics, "ca")
	source := func(name, group string) mtls.Source {
		return tlstest.Snapshot(tlstest.Panics, tlstest.Leaf(tlstest.Panics, ca, name, tlstest.In(group), tlstest.At("127.0.0.1"), tlstest.For(forServers, forClients)), ca)
	}
	return source("shop", "shops"), []mtls.Source{source("till-1", "tills"), source("jane", "people")}
}
