package supervisor

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// answering listens and answers each connection with a word.
func answering(t *testing.T, word string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(word)) // the client judges what it reads
			conn.Close()
		}
	}()
	return listener
}

// balanced starts a balancer and returns its address.
func balanced(t *testing.T, behind ...string) string {
	t.Helper()
	return balancedBy(t, func(string) bool { return true }, behind...)
}

// balancedBy is balanced with a word on which servers are ready.
func balancedBy(t *testing.T, ready func(string) bool, behind ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := (&balancer{dial: new(net.Dialer).DialContext, behind: behind, ready: ready}).serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); listener.Close(); running.Wait() })
	return listener.Addr().String()
}

// ask connects and reads all.
func ask(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(conn) // a reset says as much as an end
	return string(data)
}

func TestConnectionsGoToEachServerInTurn(t *testing.T) {
	address := balanced(t, answering(t, "a").Addr().String(), answering(t, "b").Addr().String())
	seen := map[string]int{}
	for range 10 {
		seen[ask(t, address)]++
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("%v, want five of each", seen)
	}
}

func TestAServerThatIsAwayIsPassedOver(t *testing.T) {
	away := answering(t, "a")
	address := balanced(t, away.Addr().String(), answering(t, "b").Addr().String())
	away.Close()
	for range 4 {
		if got := ask(t, address); got != "b" {
			t.Errorf("got %q, want the server that is there", got)
		}
	}
}

func TestAServerThatListensAndIsNotReadyIsLeftAlone(t *testing.T) {
	starting, ready := answering(t, "a").Addr().String(), answering(t, "b").Addr().String()
	address := balancedBy(t, func(a string) bool { return a == ready }, starting, ready)
	for range 4 {
		if got := ask(t, address); got != "b" {
			t.Errorf("got %q, want the server that is ready", got)
		}
	}
	// Where none is ready, one that listens is better than nothing.
	if got := ask(t, balancedBy(t, func(string) bool { return false }, starting)); got != "a" {
		t.Errorf("got %q, want the server that listens", got)
	}
}

func TestWithoutAnyServerTheConnectionIsClosed(t *testing.T) {
	away := answering(t, "a")
	address := balanced(t, away.Addr().String())
	away.Close()
	if got := ask(t, address); got != "" {
		t.Errorf("got %q", got)
	}
}

// A client that has said all must still hear the rest of the answer.
func TestOneSideMayEndBeforeTheOther(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		said, _ := io.ReadAll(conn) // until the client has said all
		_, _ = conn.Write(append([]byte("heard "), said...))
	}()
	conn, err := net.Dial("tcp", balanced(t, server.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("all")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(conn); err != nil || string(data) != "heard all" {
		t.Errorf("%q, %v", data, err)
	}
}
