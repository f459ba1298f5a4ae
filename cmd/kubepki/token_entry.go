package main

import (
	"cmp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/report"
)

// tokenDocument is a token in machine output.
type tokenDocument struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	ID         string `json:"id"`
	Name       string `json:"name"`            // of the Secret in kube-system
	Token      string `json:"token,omitempty"` // with --reveal alone
	User       string `json:"user,omitempty"`
	// Description is as somebody wrote it.
	Description string              `json:"description,omitempty"`
	Created     string              `json:"created,omitempty"`
	Expires     string              `json:"expires,omitempty"`
	Expired     bool                `json:"expired"`
	Usages      []string            `json:"usages"`
	Groups      []string            `json:"groups"`
	Signature   string              `json:"signature,omitempty"` // of cluster-info; show alone
	Findings    []bootstrap.Finding `json:"findings"`
}

func newTokenDocument(e *bootstrap.Entry, reveal bool) tokenDocument {
	d := tokenDocument{
		ID: e.ID, Name: e.Name, Description: e.Description, Expired: e.Expired,
		Usages: append([]string{}, e.Usages...), Groups: append([]string{}, e.Groups...), Findings: append([]bootstrap.Finding{}, e.Findings...),
		Created: timeText(e.Created), Expires: timeText(e.Expires),
	}
	if !e.Token.IsZero() {
		d.User = e.Token.User()
		if reveal {
			d.Token = e.Token.Reveal()
		}
	}
	return d
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// shownToken is a token for people.
func shownToken(e *bootstrap.Entry, reveal bool) string {
	switch {
	case e.Token.IsZero():
		return report.Plain(cmp.Or(e.ID, "<malformed>"))
	case reveal:
		return e.Token.Reveal()
	}
	return e.Token.String()
}

// shownTTL is what is left of a token's life, in kubeadm's words.
func shownTTL(e *bootstrap.Entry, now time.Time) string {
	switch {
	case e.Expired:
		return "<expired>"
	case e.Expires.IsZero():
		return "<forever>"
	}
	return duration.ShortHumanDuration(e.Expires.Sub(now))
}

func shownList(list []string) string {
	return report.Plain(cmp.Or(strings.Join(list, ","), "<none>"))
}
