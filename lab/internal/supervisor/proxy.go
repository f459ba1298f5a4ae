package supervisor

import (
	"context"
	"net"
	"net/http"
	"time"
)

// proxy lets programs outside of the lab call inside, by HTTP CONNECT: kubectl by
// proxy-url of its kubeconfig, browsers and curl by their proxy settings. It can
// reach the lab's network alone, for that is where it stands.
type proxy struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy takes CONNECT alone: everything in the lab speaks TLS", http.StatusMethodNotAllowed)
		return
	}
	dialling, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	server, err := p.dial(dialling, "tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		server.Close()
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer client.Close()
	if _, err := client.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		server.Close()
		return
	}
	early := make([]byte, buffered.Reader.Buffered())
	if _, err := buffered.Read(early); len(early) > 0 && err != nil {
		server.Close()
		return
	}
	if _, err := server.Write(early); err != nil {
		server.Close()
		return
	}
	join(context.WithoutCancel(r.Context()), client, server)
}
