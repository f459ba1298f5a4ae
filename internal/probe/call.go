package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/kubepki/kubepki/internal/trust"
)

// maxAnswer bounds an answer, head and body, in bytes.
const maxAnswer = 8 << 20

// request is what a call asks.
type request struct {
	method, path string
	body         []byte
}

// requestTo is the request that proves a client at a kind of server; nil when
// none does.
//
//   - etcd serves its version on both ports, behind the handshake that demands a
//     certificate (etcd server/etcdserver/api/etcdhttp/version.go, peer.go).
//   - The apiserver says who a caller is; every caller whom it knows may ask
//     (the role system:basic-user). It keeps no SelfSubjectReview.
//   - The kubelet answers 401 to whom it does not know, and 403 or better to
//     whom it knows (k/k pkg/kubelet/server/server.go).
func requestTo(kind trust.ServerKind) *request {
	switch kind {
	case trust.ServesEtcd, trust.ServesEtcdPeers, trust.ServesElsewhere:
		return &request{method: http.MethodGet, path: "/version"}
	case trust.ServesAPI, trust.ServesEndpoint:
		return &request{http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews",
			[]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)}
	case trust.ServesKubelet:
		return &request{method: http.MethodGet, path: "/healthz"}
	}
	return nil
}

// byHandshake tells whether the handshake alone lets a caller in.
func byHandshake(kind trust.ServerKind) bool {
	return kind == trust.ServesEtcd || kind == trust.ServesEtcdPeers || kind == trust.ServesElsewhere
}

// certificate is what a credential shows, with its key; nil when that is not at
// hand.
func (p *prober) certificate(c *trust.Credential) *tls.Certificate {
	m, key := p.graph.Material(c.Certificate), p.keys[c.Key]
	if m.Leaf() == nil || key == nil || !trust.SameKey(key.Public(), m.Leaf().PublicKey) {
		return nil
	}
	t := &tls.Certificate{PrivateKey: key, Leaf: m.Leaf()}
	for _, x := range m.Certificates {
		t.Certificate = append(t.Certificate, x.Raw)
	}
	return t
}

// call makes the authenticated request with one credential.
func (p *prober) call(ctx context.Context, s trust.Server, c *trust.Credential) trust.Call {
	out := trust.Call{Credential: c}
	status, body, local, err := p.ask(ctx, s.Address, c, *requestTo(s.Kind))
	out.Status = status
	switch {
	case err != nil:
		p.refused(ctx, s, local, err, &out)
	case status == http.StatusUnauthorized && !byHandshake(s.Kind):
		out.Outcome, out.Reason = trust.Refused, "401 Unauthorized"
	case status >= http.StatusInternalServerError && !byHandshake(s.Kind):
		out.Outcome, out.Reason = trust.NotDialled, "answers "+http.StatusText(status)
	default:
		out.Outcome = trust.Answered
		out.User, out.Groups = whoAmI(body)
	}
	return out
}

// refused says why a call failed before an answer came.
func (p *prober) refused(ctx context.Context, s trust.Server, local net.Addr, err error, out *trust.Call) {
	out.Outcome, out.Alert = trust.Refused, alertOf(err)
	stands := false
	if out.Alert == "" && !isTimeout(err) {
		word := p.verdict(ctx, s.Address, nameIn(s.Address), p.certificate(out.Credential), p.Timeout)
		out.Alert, stands = alertOf(word), isTimeout(word)
	}
	switch {
	case out.Alert != "":
		out.Reason = "TLS alert " + out.Alert
	case ctx.Err() != nil:
		out.Outcome, out.Reason = trust.NotDialled, "was not waited for"
	case stands && byHandshake(s.Kind):
		// It has let us in, and serves no HTTP there (--listen-client-http-urls).
		out.Outcome = trust.Answered
	case isTimeout(err):
		out.Outcome, out.Reason = trust.Unreachable, "takes the connection and says nothing within "+p.Timeout.String()
	case s.Kind == trust.ServesEtcdPeers && p.fromElsewhere(out.Credential, local):
		// etcd closes after the handshake, without an alert (etcd
		// client/pkg/transport/listener_tls.go, checkCertSAN).
		out.Outcome, out.Reason = trust.NotDialled, "lets a peer in only from the addresses in its certificate"
	default:
		out.Reason = phrase(err, "")
	}
}

// fromElsewhere tells whether a certificate holds addresses or names, and not
// the one that we dial from.
func (p *prober) fromElsewhere(c *trust.Credential, local net.Addr) bool {
	leaf := p.graph.Material(c.Certificate).Leaf()
	if local == nil || len(leaf.IPAddresses)+len(leaf.DNSNames) == 0 {
		return false
	}
	host, _, err := net.SplitHostPort(local.String())
	return err != nil || leaf.VerifyHostname(host) != nil
}

// nameIn is the name by which a client asks for a server: the host that it dials.
// What chooses among servers by the name shows others something else. Of an
// address crypto/tls sends none (RFC 6066, section 3).
func nameIn(address string) string {
	host, _, _ := net.SplitHostPort(address) // without a port nobody is dialled
	return host
}

// ask makes one request over a connection of its own and returns the answer,
// and the address that it was made from.
func (p *prober) ask(ctx context.Context, address string, c *trust.Credential, r request) (status int, body []byte, local net.Addr, err error) {
	conn, shut, err := p.open(ctx, address, p.Timeout)
	if err != nil {
		return 0, nil, nil, err
	}
	defer shut()
	local = conn.LocalAddr()
	client := tls.Client(conn, clientConfig(nameIn(address), p.certificate(c)))
	if err := client.HandshakeContext(ctx); err != nil {
		return 0, nil, local, err
	}
	status, body, err = exchange(ctx, client, address, r)
	_ = client.Close() // says goodbye
	return status, body, local, err
}

// exchange is HTTP/1.1 for one request.
func exchange(ctx context.Context, conn io.ReadWriter, address string, r request) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+address+r.path, bytes.NewReader(r.body))
	if err != nil {
		return 0, nil, err
	}
	req.Close = true
	req.Header.Set("Accept", "application/json, */*") // key sets have a type of their own
	req.Header.Set("User-Agent", "kubepki")
	if len(r.body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := req.Write(conn); err != nil {
		// The alert that explains it may have come already.
		if _, readErr := conn.Read(make([]byte, 1)); alertOf(readErr) != "" {
			err = readErr
		}
		return 0, nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close() // it has been read; the connection is closed by who opened it
	if errors.Is(err, io.ErrUnexpectedEOF) && len(body) > 0 {
		err = nil // cut off, by us or by it: what does not parse says nothing
	}
	return answer.StatusCode, body, err
}

// whoAmI reads a SelfSubjectReview; what is none says nothing.
func whoAmI(body []byte) (user string, groups []string) {
	var review struct {
		Status struct {
			UserInfo struct {
				Username string   `json:"username"`
				Groups   []string `json:"groups"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	// A Status, which is what a refusal holds, has a string there.
	if json.Unmarshal(body, &review) != nil {
		return "", nil
	}
	return review.Status.UserInfo.Username, review.Status.UserInfo.Groups
}
