package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/trust"
)

// Presented is what a server shows to whoever dials it.
type Presented struct {
	Address string        `json:"address"` // HOST:PORT
	Outcome trust.Outcome `json:"outcome"`
	Reason  string        `json:"reason,omitempty"` // why it was not seen
	// Alert is the TLS alert with which it refuses a client that shows nothing,
	// as RFC 8446 section 6 spells it.
	Alert        string                 `json:"alert,omitempty"`
	TLSVersion   string                 `json:"tlsVersion,omitempty"`
	ALPN         string                 `json:"alpn,omitempty"`
	Certificates []*inspect.Certificate `json:"certificates"`
	// AsksClient tells that it asks for a client certificate, ClientAuthorities
	// whom it names then, as distinguished names of RFC 2253.
	AsksClient        bool     `json:"asksClient"`
	ClientAuthorities []string `json:"clientAuthorities"`
}

func newPresented(o *trust.Observation) Presented {
	p := Presented{Address: o.Server.Address, Outcome: o.Outcome, Reason: o.Reason, Alert: o.Alert, TLSVersion: o.Version, ALPN: o.ALPN,
		AsksClient: o.AsksClient, Certificates: []*inspect.Certificate{}, ClientAuthorities: []string{}}
	for _, c := range o.Chain {
		p.Certificates = append(p.Certificates, inspect.NewCertificate(c))
	}
	for _, a := range o.Authorities {
		p.ClientAuthorities = append(p.ClientAuthorities, trust.SubjectText(a))
	}
	return p
}

// Server is the answer of `kubepki show HOST:PORT`.
type Server struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	At         time.Time `json:"at"`
	ServerName string    `json:"serverName,omitempty"` // as sent (SNI), when it is not the host
	Presented
}

// NewServer puts what was seen of a server into its public form.
func NewServer(o *trust.Observation, serverName string, at time.Time) *Server {
	return &Server{APIVersion: APIVersion, Kind: "Server", At: at.UTC().Truncate(time.Second), ServerName: serverName, Presented: newPresented(o)}
}

// Text prints a server for people: how it speaks, then each certificate.
func (s *Server) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	l := &lines{to: &b, palette: p}
	fmt.Fprintf(&b, "%s: %s\n", p.Bold(Plain(s.Address)), s.TLSVersion)
	l.line("server name", s.ServerName)
	l.line("alpn", s.ALPN)
	l.line("clients", s.clients())
	if s.Alert != "" {
		fmt.Fprintf(&b, "  %-12s %s\n", "refuses", p.Red(Plain("who shows no certificate: "+s.Alert)))
	}
	for i, c := range s.Certificates {
		b.WriteByte('\n')
		(&File{At: s.At}).certificate(l, fmt.Sprintf("%d of %d", i+1, len(s.Certificates)), c)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// clients says whether a certificate is asked of clients, and of whom.
func (s *Presented) clients() string {
	switch {
	case !s.AsksClient:
		return "are asked for no certificate"
	case len(s.ClientAuthorities) == 0:
		return "are asked for a certificate of any authority"
	}
	return "are asked for a certificate of " + strings.Join(s.ClientAuthorities, "; ")
}

// Rows prints one row per certificate; wide adds names, serial and TLS.
func (s *Server) Rows(w io.Writer, wide bool, p Palette) error {
	head := []string{"SERVER", "SUBJECT", "ISSUER", "EXPIRES", "LEFT"}
	if wide {
		head = append(head, "SERIAL", "NAMES", "TLS", "ALPN", "CLIENT AUTHORITIES")
	}
	var rows [][]string
	for _, c := range s.Certificates {
		row := []string{Plain(s.Address), Plain(c.Subject), Plain(c.Issuer), c.NotAfter.Format(time.RFC3339), Left(c.NotBefore, c.NotAfter, s.At)}
		if wide {
			row = append(row, c.Serial, Plain(strings.Join(c.All(), ",")), s.TLSVersion, Plain(s.ALPN), Plain(strings.Join(s.ClientAuthorities, "; ")))
		}
		rows = append(rows, row)
	}
	return Table(w, head, rows)
}

// Observed is what `kubepki verify --live` saw of one server.
type Observed struct {
	Component string           `json:"component"`
	Kind      trust.ServerKind `json:"kind"`
	Presented
	Calls []ObservedCall `json:"calls"`
	// KeyIDs are, of an apiserver, the ids of the keys that it verifies tokens
	// with; absent when nobody could ask.
	KeyIDs      []string             `json:"keyIDs,omitempty"`
	APIServices []ObservedAPIService `json:"apiServices,omitempty"`
}

// ObservedCall is an authenticated request with one credential.
type ObservedCall struct {
	Credential string        `json:"credential"`
	Outcome    trust.Outcome `json:"outcome"`
	Reason     string        `json:"reason,omitempty"`
	Alert      string        `json:"alert,omitempty"`
	Status     int           `json:"status,omitempty"` // of HTTP
	User       string        `json:"user,omitempty"`   // who the server says that the caller is
	Groups     []string      `json:"groups,omitempty"`
}

// ObservedAPIService is one that a Service of the cluster stands behind.
type ObservedAPIService struct {
	Name      string `json:"name"`
	Service   string `json:"service"`
	Available bool   `json:"available"`
	Reason    string `json:"reason,omitempty"`
}

func newObserved(o *trust.Observation) Observed {
	out := Observed{Component: o.Server.Component, Kind: o.Server.Kind, Presented: newPresented(o), Calls: []ObservedCall{}}
	for _, c := range o.Calls {
		out.Calls = append(out.Calls, ObservedCall{Credential: c.Credential.ID, Outcome: c.Outcome, Reason: c.Reason, Alert: c.Alert, Status: c.Status, User: c.User, Groups: c.Groups})
	}
	if o.Published != nil {
		out.KeyIDs = o.Published.KeyIDs
		for _, s := range o.Published.APIServices {
			out.APIServices = append(out.APIServices, ObservedAPIService{Name: s.Name, Service: s.Service, Available: s.Available, Reason: s.Reason})
		}
	}
	return out
}

// observedRows is the table of the servers that were dialled.
func (v *Verification) observedRows(p Palette) [][]string {
	var rows [][]string
	for i := range v.Observations {
		o := &v.Observations[i]
		node, component := trust.SplitID(o.Component)
		row := []string{Plain(OnNodes(component, addNode(nil, node))), Plain(o.Address), "–", "–", "–", Plain(o.Reason)}
		switch {
		case len(o.Certificates) > 0:
			leaf := o.Certificates[0]
			row[2], row[3], row[4], row[5] = o.TLSVersion, leaf.Serial, Left(leaf.NotBefore, leaf.NotAfter, v.At), o.callers(p)
		case o.Outcome != trust.NotDialled:
			row[5] = p.Red(row[5])
		}
		rows = append(rows, row)
	}
	return rows
}

// callers counts who was let in, of those who could try.
func (o *Observed) callers(p Palette) string {
	in, tried := 0, 0
	for _, c := range o.Calls {
		if c.Outcome != trust.NotDialled {
			tried++
		}
		if c.Outcome == trust.Answered {
			in++
		}
	}
	text := fmt.Sprintf("%d of %d let in", in, tried)
	switch {
	case tried == 0:
		return "nobody called"
	case in < tried:
		return p.Red(text)
	}
	return text
}
