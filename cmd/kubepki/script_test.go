package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// serve starts a TLS server on loopback until the script ends, and sets a
// variable to its address: serve VARIABLE CERT KEY [CLIENT-CA].
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: serve VARIABLE CERT KEY [CLIENT-CA]")
	}
	pair, err := tls.LoadX509KeyPair(ts.MkAbs(args[1]), ts.MkAbs(args[2]))
	ts.Check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	if len(args) > 3 {
		data, err := os.ReadFile(ts.MkAbs(args[3]))
		ts.Check(err)
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(data)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
	go acceptTLS(l, config)
}

func acceptTLS(l net.Listener, config *tls.Config) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			server := tls.Server(conn, config)
			if server.Handshake() == nil {
				_, _ = server.Read(make([]byte, 1)) // until the client is gone
			}
		}()
	}
}
