package restart

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/trust"
)

// Cluster is what is known of a cluster, for questions to what runs.
type Cluster struct {
	Graph *trust.Graph
	Keys  probe.Keys
	Probe probe.Options
}

// maxMembers bounds the members of an etcd cluster that are asked.
const maxMembers = 64

// MayStop tells why an etcd member must not be ended now: the others alone would be no
// quorum, while there is one. A cluster of one or two members has none to lose that
// would outlast a restart, and one that has no quorum has none to lose at all. What
// could not be asked is told to say, and is no reason. Other targets may always.
func MayStop(ctx context.Context, c Cluster, t *Target, say func(string)) error {
	if t.Component != catalog.Etcd {
		return nil
	}
	e, err := c.etcd(t)
	if err != nil {
		say(fmt.Sprintf("%s: whether the other members are healthy is not known: %v", t.ID(), err))
		return nil
	}
	if err := e.healthy(ctx, e.url); err != nil {
		say(fmt.Sprintf("%s has no quorum now that it could lose: %v", t.ID(), err))
		return nil
	}
	members, err := e.members(ctx)
	if err != nil {
		say(fmt.Sprintf("%s: whether the other members are healthy is not known: %v", t.ID(), err))
		return nil
	}
	if len(members.others) < 2 {
		say(fmt.Sprintf("etcd has %d members: it answers nobody while %s starts", len(members.others)+1, t.ID()))
		return nil
	}
	return e.keepsQuorum(ctx, members)
}

// keepsQuorum asks the other members.
func (e *etcdClient) keepsQuorum(ctx context.Context, m *etcdMembers) error {
	said := make([]error, len(m.others))
	var wg sync.WaitGroup
	for i, o := range m.others {
		wg.Go(func() { said[i] = e.reachable(ctx, o) })
	}
	wg.Wait()
	var ill []string
	for i, err := range said {
		if err != nil {
			ill = append(ill, fmt.Sprintf("%s (%v)", m.others[i].name, err))
		}
	}
	all := len(m.others) + 1
	if well := len(m.others) - len(ill); well < all/2+1 {
		return &QuorumError{Members: all, Ill: ill}
	}
	return nil
}

// QuorumError tells that etcd would lose its quorum by a restart.
type QuorumError struct {
	Members int
	Ill     []string // with what is wrong
}

func (e *QuorumError) Error() string {
	return fmt.Sprintf("etcd would lose its quorum: of its %d members %s cannot be counted on", e.Members, strings.Join(e.Ill, ", "))
}

// Hint tells what comes first.
func (e *QuorumError) Hint() string {
	return "bring those members back first: one member after the other, never two at a time"
}

// etcdHealthy tells why a member is not healthy: it must answer a read that needs a
// quorum (etcd server/etcdserver/api/etcdhttp/health.go).
func (c Cluster) etcdHealthy(ctx context.Context, t *Target) error {
	e, err := c.etcd(t)
	if err != nil {
		return nil //nolint:nilerr // nobody can ask it: the live proof says what is to be said
	}
	return e.healthy(ctx, e.url)
}

// etcdClient asks the members of one etcd cluster.
type etcdClient struct {
	url    string // of the target's member, without a path
	client *http.Client
}

// etcd makes a client by a credential of a link to the member whose key is at hand.
func (c Cluster) etcd(t *Target) (*etcdClient, error) {
	for _, s := range catalog.Servers(c.Graph) {
		if s.Component != t.ID() || s.Kind != trust.ServesEtcd || s.Address == "" || s.Skip != "" {
			continue
		}
		for _, i := range s.Links {
			l := &c.Graph.Links[i]
			if l.Client == nil || l.Client.Credential == nil {
				continue
			}
			pair := c.pair(l.Client.Credential)
			roots := c.roots(s.ClientCAs, l)
			if pair != nil && roots != nil {
				config := &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: roots, MinVersion: tls.VersionTLS12, Time: c.now()}
				return &etcdClient{"https://" + s.Address, callOnce(config, c.Probe.Dial)}, nil
			}
		}
		return nil, errors.New("no client certificate with its key is at hand for it")
	}
	return nil, errors.New("no file tells where it serves, or it does so without TLS")
}

// now is the time by which certificates are judged; nil: the clock's.
func (c Cluster) now() func() time.Time {
	if c.Probe.At.IsZero() {
		return nil
	}
	return func() time.Time { return c.Probe.At }
}

// pair is what a credential shows; nil where its key is not at hand.
func (c Cluster) pair(credential *trust.Credential) *tls.Certificate {
	m, key := c.Graph.Material(credential.Certificate), c.Keys[credential.Key]
	if m.Leaf() == nil || key == nil || !trust.SameKey(key.Public(), m.Leaf().PublicKey) {
		return nil
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: m.Leaf()}
	for _, x := range m.Certificates {
		pair.Certificate = append(pair.Certificate, x.Raw)
	}
	return pair
}

// roots are the authorities by which a caller judges etcd: its bundle's, or else
// those that etcd has itself.
func (c Cluster) roots(own []trust.Place, l *trust.Link) *x509.CertPool {
	places := slices.Clone(own)
	if l.Server != nil && l.Server.Bundle != nil {
		places = []trust.Place{l.Server.Bundle.Anchors}
	}
	pool, any := x509.NewCertPool(), false
	for _, at := range places {
		if m := c.Graph.Material(at); m.OK() {
			for _, x := range m.Certificates {
				pool.AddCert(x)
				any = true
			}
		}
	}
	if !any {
		return nil
	}
	return pool
}

// healthy asks one member.
func (e *etcdClient) healthy(ctx context.Context, at string) error {
	status, text, err := ask(ctx, at+"/health", e.client)
	if err != nil {
		return fmt.Errorf("%s/health: %w", at, err)
	}
	var said struct{ Health, Reason string }
	if json.Unmarshal([]byte(text), &said) == nil && said.Health == "true" {
		return nil
	}
	return fmt.Errorf("%s/health says %d: %s", at, status, firstFault(text))
}

// reachable asks a member at each address that it tells its clients.
func (e *etcdClient) reachable(ctx context.Context, m etcdMember) error {
	err := errors.New("it tells its clients no address with TLS")
	for _, at := range m.urls {
		if err = e.healthy(ctx, at); err == nil {
			return nil
		}
	}
	return err
}

// etcdMembers are those of a cluster but for the one that was asked.
type etcdMembers struct{ others []etcdMember }

type etcdMember struct {
	name string
	urls []string // for clients, without a path
}

// members asks the member who else there is, by etcd's gateway for JSON (on by
// default; etcd api/etcdserverpb/rpc.proto, Cluster.MemberList). Learners do not count.
func (e *etcdClient) members(ctx context.Context) (*etcdMembers, error) {
	ctx, cancel := context.WithTimeout(ctx, healthCall)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/cluster/member/list", bytes.NewReader([]byte("{}")))
	if err != nil {
		return nil, err
	}
	status, text, err := answer(e.client, request)
	if err != nil {
		return nil, err
	}
	var list struct {
		Header struct {
			Member string `json:"member_id"`
		} `json:"header"`
		Members []struct {
			ID      string   `json:"ID"`
			Name    string   `json:"name"`
			URLs    []string `json:"clientURLs"`
			Learner bool     `json:"isLearner"`
		} `json:"members"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || status != http.StatusOK || len(list.Members) == 0 || len(list.Members) > maxMembers {
		return nil, fmt.Errorf("its list of members is not to be had: %d %s", status, firstFault(text))
	}
	all := &etcdMembers{}
	for _, m := range list.Members {
		if m.ID == list.Header.Member || m.Learner {
			continue
		}
		all.others = append(all.others, etcdMember{m.Name, tlsURLs(m.URLs)})
	}
	return all, nil
}

func tlsURLs(in []string) []string {
	var out []string
	for _, raw := range in {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.Host == "" || isLoopback(u.Hostname()) {
			continue // its own loopback is not ours
		}
		out = append(out, "https://"+u.Host)
	}
	return out
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
