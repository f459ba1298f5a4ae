package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/token"
)

// saMade is a token that was made.
type saMade struct {
	want   *saWant
	text   string
	user   token.User
	says   *content.Token
	secret *corev1.Secret // nil for a projected token
	api    []string       // audiences of the API server, as far as they are known
}

// make makes the token.
func (f *saMakeFlags) make(ctx context.Context, source saSource, w *saWant) (*saMade, error) {
	m := &saMade{want: w}
	var err error
	if w.legacy {
		if m.secret, err = source.secret(ctx, w); err == nil {
			m.text = string(m.secret.Data[corev1.ServiceAccountTokenKey])
		}
	} else {
		m.text, err = source.token(ctx, w)
	}
	if err != nil {
		return nil, err
	}
	u, err := token.Parse(m.text)
	if err == nil {
		m.says, err = content.ReadToken(m.text)
	}
	if err != nil {
		return nil, fmt.Errorf("token of %s: what the cluster gave is none: %w", w.account, err)
	}
	m.user, m.api = u.Claims.User(), m.says.Audiences
	if len(w.audiences) > 0 {
		m.api = source.apiAudiences(m.says.Issuer)
	}
	return m, nil
}

// say tells what is to be known about the token, when it is where it belongs.
func (m *saMade) say(s streams) {
	warn := func(format string, args ...any) {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(fmt.Sprintf(format, args...)))
	}
	about := "token of " + m.want.String()
	sayFindings(s, about, m.says.Findings(time.Now(), m.api...))
	if m.want.legacy || m.says.Expires == nil || m.says.IssuedAt == nil {
		return
	}
	end := timeText(*m.says.Expires)
	switch life := m.says.Expires.Sub(*m.says.IssuedAt); {
	case life < m.want.life:
		warn("the API server gave less than was asked for: the token ends at %s", end)
	case life > m.want.life:
		warn("the API server gave more than was asked for: the token ends at %s", end)
	case life < minTokenLife:
		warn("the token lives for %s, and the API gives none less than %s: clients that read their file once a minute, and clocks that differ, need more", life, minTokenLife)
	}
	bound := "nothing"
	if to := m.says.BoundTo; len(to) > 0 {
		bound = strings.ToLower(to[0].Kind) + " " + to[0].Name
	}
	fmt.Fprintf(s.err, "%s: until %s, for %s, bound to %s\n", about, end, report.Plain(strings.Join(m.says.Audiences, ", ")), report.Plain(bound))
}

// sayForeign warns of a token that the API server will not take.
func (m *saMade) sayForeign(s streams) {
	if !m.want.legacy && !slices.ContainsFunc(m.says.Audiences, func(a string) bool { return slices.Contains(m.api, a) }) {
		fmt.Fprintf(s.err, "kubepki: warning: the token is for %s: the API server takes it only if it goes by that name (--api-audiences)\n", report.Plain(strings.Join(m.says.Audiences, ", ")))
	}
}

// sayFindings tells what sa inspect would say of a token. Nothing of it keeps a
// command from being done, so that errors are warnings here.
func sayFindings(s streams, about string, findings []content.TokenFinding) {
	for _, f := range findings {
		severity := "warning"
		if f.Severity == "info" {
			severity = "note"
		}
		fmt.Fprintf(s.err, "kubepki: %s: %s: %s\n", severity, about, report.Plain(f.Message))
	}
}

// saTokenDocument is a token in machine output.
type saTokenDocument struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Token      string              `json:"token"`
	User       token.User          `json:"user"`
	Issuer     string              `json:"issuer"`
	Audiences  []string            `json:"audiences"`
	IssuedAt   *time.Time          `json:"issuedAt,omitempty"`
	Expires    *time.Time          `json:"expires,omitempty"`
	BoundTo    []content.Reference `json:"boundTo,omitempty"`
}

func newSATokenDocument(m *saMade) saTokenDocument {
	return saTokenDocument{
		APIVersion: report.APIVersion, Kind: "ServiceAccountToken", Token: m.text, User: m.user, Issuer: m.says.Issuer,
		Audiences: append([]string{}, m.says.Audiences...), IssuedAt: m.says.IssuedAt, Expires: m.says.Expires, BoundTo: m.says.BoundTo,
	}
}
