package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/token"
)

// saMade is a token that was made.
type saMade struct {
	text   string
	claims token.Claims
	secret *corev1.Secret // nil for a projected token
}

// make makes the token, and says what is to be known about it.
func (f *saFlags) make(ctx context.Context, s streams, source saSource, w *saWant) (*saMade, error) {
	made := &saMade{}
	var err error
	if f.legacy {
		if made.secret, err = source.secret(ctx, w); err == nil {
			made.text = string(made.secret.Data[corev1.ServiceAccountTokenKey])
		}
	} else {
		made.text, err = source.token(ctx, w)
	}
	if err != nil {
		return nil, err
	}
	u, err := token.Parse(made.text)
	if err != nil {
		return nil, fmt.Errorf("token of %s: what the cluster gave is none: %w", w.account, err)
	}
	made.claims = u.Claims
	if f.legacy {
		f.sayLegacy(s, w)
	} else {
		made.say(s, w)
	}
	return made, nil
}

// maxQuietLife is how long a token may live without a warning.
const maxQuietLife = 24 * time.Hour

func (m *saMade) say(s streams, w *saWant) {
	warn := func(format string, args ...any) {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(fmt.Sprintf(format, args...)))
	}
	c, bound := &m.claims, boundText(&m.claims)
	end := c.Expires.UTC().Format(time.RFC3339)
	life := c.Expires.Sub(c.IssuedAt)
	switch {
	case life < w.life:
		warn("the API server gave less than was asked for: the token ends at %s", end)
	case life > w.life:
		warn("the API server gave more than was asked for: the token ends at %s", end)
	}
	if life > maxQuietLife {
		warn("whoever learns the token is %s until %s, %s from now on: a shorter --duration and a renewal are safer", w.account, end, duration.ShortHumanDuration(life))
	}
	if life < minTokenLife {
		warn("the token lives for %s, and the API gives none less than %s: clients that read their file once a minute, and clocks that differ, need more", life, minTokenLife)
	}
	if bound == "" {
		warn("the token is bound to nothing: until it expires, only deleting %s ends it", w.account)
		bound = "nothing"
	}
	fmt.Fprintf(s.err, "token of %s: until %s, for %s, bound to %s\n", w.account, end, report.Plain(strings.Join(c.Audiences, ", ")), bound)
}

// sayLegacy warns of what is wrong with such tokens.
func (f *saFlags) sayLegacy(s streams, w *saWant) {
	fmt.Fprintf(s.err, "kubepki: warning: a token of a Secret never expires, and whoever may read Secrets of %s has it: without --legacy there is one that does\n", w.namespace)
	if f.offline() && !w.wantsManifest {
		fmt.Fprintf(s.err, "kubepki: warning: the API server takes the token only while Secret %s/%s holds this very one: kubepki sa token --secret prints it\n", w.namespace, w.secret)
	}
}

// saTokenDocument is a token in machine output.
type saTokenDocument struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Token      string     `json:"token"`
	User       token.User `json:"user"`
	Issuer     string     `json:"issuer"`
	Audiences  []string   `json:"audiences"`
	Issued     string     `json:"issued,omitempty"`
	Expires    string     `json:"expires,omitempty"`
	BoundTo    string     `json:"boundTo,omitempty"`
}

func newSATokenDocument(m *saMade) saTokenDocument {
	c := &m.claims
	return saTokenDocument{
		APIVersion: report.APIVersion, Kind: "ServiceAccountToken", Token: m.text, User: c.User(),
		Issuer: c.Issuer, Audiences: append([]string{}, c.Audiences...), Issued: timeText(c.IssuedAt), Expires: timeText(c.Expires), BoundTo: boundText(c),
	}
}
