package connlimit_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/connlimit"
)

const most = 8

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server serves over TLS with few connections; /slow answers when release is closed, and
// tells of itself on begun.
func server(t *testing.T, begun chan<- bool, release <-chan bool) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- true
			<-release
		}
		fmt.Fprint(w, r.URL.Path)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS() // takes ConnState for itself, so the limit is on a second listener
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	limited := &http.Server{Handler: s.Config.Handler, TLSConfig: s.TLS.Clone(), ErrorLog: s.Config.ErrorLog, ReadHeaderTimeout: time.Minute}
	l = connlimit.HTTP(limited, l, most)
	go func() { _ = limited.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = limited.Close(); s.Close() })
	s.URL = "https://" + l.Addr().String()
	return s
}

func TestWhoSaysNothingKeepsNobodyAway(t *testing.T) {
	for name, flood := range map[string]func(net.Conn){
		"connections without a handshake":   func(net.Conn) {},
		"connections with half a handshake": func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2}) },
		"connections that have shaken hands": func(c net.Conn) {
			go func() {
				// #nosec: it is the flood, and believes everybody
				_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}).HandshakeContext(context.Background())
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun, release := make(chan bool), make(chan bool)
			s := server(t, begun, release)
			slow := make(chan error, 1)
			go func() {
				r, err := s.Client().Get(s.URL + "/slow")
				if err == nil {
					defer r.Body.Close()
					_, err = io.Copy(io.Discard, r.Body)
				}
				slow <- err
			}()
			<-begun
			for range 5 * most {
				c, err := net.Dial("tcp", s.Listener.Addr().(*net.TCPAddr).IP.String()+s.URL[len("https://127.0.0.1"):])
				check(t, err)
				t.Cleanup(func() { _ = c.Close() })
				flood(c)
			}
			// A client of its own, for a new connection.
			client := &http.Client{Transport: s.Client().Transport.(*http.Transport).Clone(), Timeout: 10 * time.Second}
			r, err := client.Get(s.URL + "/quick")
			check(t, err)
			check(t, r.Body.Close())
			// And who was being answered is not the one that was closed.
			close(release)
			if err := <-slow; err != nil {
				t.Errorf("who was being answered was cut off: %v", err)
			}
		})
	}
}

func TestWhoIsAnsweredForLongestGoesWhereAllAreAnswered(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	s := server(t, begun, release)
	ended := make(chan int, 2*most)
	ask := func(i int) {
		client := &http.Client{Transport: s.Client().Transport.(*http.Transport).Clone()}
		r, err := client.Get(s.URL + "/slow")
		if err != nil {
			ended <- i
			return
		}
		r.Body.Close()
	}
	for i := range most + 1 {
		go ask(i)
		<-begun
	}
	if i := <-ended; i != 0 {
		t.Errorf("number %d was closed, want the first", i)
	}
	close(release)
}

// TestStream has connections of a unix socket that echo lines.
func TestStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	raw, err := net.Listen("unix", path)
	check(t, err)
	l := connlimit.Stream(raw, most)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		check(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	say := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintln(c, "hello"); err != nil {
			return err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && line != "hello\n" {
			err = fmt.Errorf("the answer is %q", line)
		}
		return err
	}
	first := dial()
	check(t, say(first))
	for range 5 * most {
		dial() // and say nothing
	}
	if err := say(first); err != nil {
		t.Errorf("who has spoken was closed for those who say nothing: %v", err)
	}
	if err := say(dial()); err != nil {
		t.Errorf("who came after those who say nothing waits: %v", err)
	}
	// Where all have spoken the one goes that has been silent for longest: not the first
	// one, which speaks in between.
	second := dial()
	check(t, say(second))
	check(t, say(first))
	for range most - 1 {
		check(t, say(dial()))
	}
	if err := say(first); err != nil {
		t.Errorf("one that spoke of late was closed: %v", err)
	}
	if err := say(second); err == nil {
		t.Error("the one that was silent for longest is open")
	}
}
