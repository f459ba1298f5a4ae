package saserver

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kubepki/kubepki/internal/remember"
	"github.com/kubepki/kubepki/mtls"
)

// Callers says who may ask for reviews: clients with a certificate. The server is
// [Serve], and asks for one ([mtls.UnverifiedClients]).
type Callers struct {
	// Source has the bundle that the certificate must come from: that of the
	// server's own configuration.
	Source mtls.Source
	// Names are the common names that are allowed, letter by letter; none: all.
	Names []string

	known remember.Clients
}

// admit returns who asks. It is called for each request, so that a connection
// does not outlive the trust in its client.
func (c *Callers) admit(r *http.Request) (name string, err error) {
	if c == nil {
		return "", nil
	}
	client, err := c.known.Verify(c.Source, r.TLS)
	if err != nil {
		return "", err
	}
	name = client.Certificate.Subject.CommonName
	if len(c.Names) > 0 && !slices.Contains(c.Names, name) {
		return name, fmt.Errorf("the client %.80q is none of those that may ask (--allowed-name)", name)
	}
	return name, nil
}

// refuseCaller says no more than that. The connection is closed, so that a
// client whose certificate was renewed meanwhile comes with the new one.
func refuseCaller(w http.ResponseWriter, err error) {
	w.Header().Set("Connection", "close")
	if errors.Is(err, mtls.ErrNoClient) {
		http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
		return
	}
	http.Error(w, "not allowed", http.StatusForbidden)
}
