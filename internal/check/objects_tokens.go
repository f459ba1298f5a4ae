package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// judgedBeside returns the rule that passes on what was judged where the secrets of
// bootstrap tokens were at hand.
func judgedBeside(id string) func(*Case) []Finding {
	return func(c *Case) []Finding {
		o := c.Objects()
		if o == nil {
			return nil
		}
		var out []Finding
		for _, b := range o.Bootstrap {
			if b.ID == id {
				out = append(out, Finding{Severity: Severity(b.Severity), Cause: b.Cause, Fix: b.Fix, Links: []int{16}, needs: []trust.Place{{Node: b.Place.Node, Path: b.Place.Path, Field: "data[kubeconfig]"}}}.at(b.Place))
			}
		}
		return out
	}
}

// tokenGroups joins tokens that have the same fault: a key that was replaced spoils
// all that it signed at once.
type tokenGroups struct {
	order []string
	of    map[string][]*trust.StoredToken
}

func (g *tokenGroups) add(reason string, t *trust.StoredToken) {
	if g.of == nil {
		g.of = map[string][]*trust.StoredToken{}
	}
	if g.of[reason] == nil {
		g.order = append(g.order, reason)
	}
	g.of[reason] = append(g.of[reason], t)
}

// findings makes one of each group, with the tokens' Secrets as its paths.
func (g *tokenGroups) findings(make func(reason string, tokens []*trust.StoredToken) Finding) []Finding {
	var out []Finding
	for _, reason := range g.order {
		tokens := g.of[reason]
		f := make(reason, tokens).at(tokens[0].Place)
		f.Links = []int{12}
		for _, t := range tokens[1:] {
			f.Paths = append(f.Paths, t.Place.Path)
		}
		out = append(out, f)
	}
	return out
}

func tokensNamed(tokens []*trust.StoredToken) string {
	text := fmt.Sprintf("Secret %s/%s", tokens[0].Namespace, tokens[0].Secret)
	if len(tokens) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(tokens)-1)
	}
	return text
}

func remakeToken(t *trust.StoredToken) string {
	return know(sh("kubectl", "-n", t.Namespace, "patch", "secret", t.Secret, "--type", "json", "-p", `[{"op":"remove","path":"/data/token"}]`), "kube-controller-manager makes a new one; or delete the Secret")
}

// saTokenInvalid: nobody who shows the token is let in.
func saTokenInvalid(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var groups tokenGroups
	for i := range o.Tokens {
		if t := &o.Tokens[i]; t.InvalidSince == "" {
			if reason := c.tokenFault(o, t); reason != "" {
				groups.add(reason, t)
			}
		}
	}
	return groups.findings(func(reason string, tokens []*trust.StoredToken) Finding {
		f := Finding{Cause: fmt.Sprintf("the token of %s is refused: %s", tokensNamed(tokens), reason), Fix: remakeToken(tokens[0])}
		if tokens[0].Gone {
			f.Fix = sh("kubectl", "-n", tokens[0].Namespace, "delete", "secret", tokens[0].Secret)
		}
		if tokens[0].Empty {
			f.Severity = Warning
			f.Cause = fmt.Sprintf("%s %s", tokensNamed(tokens), reason)
			f.Fix = "see why the controller serviceaccount-token of kube-controller-manager does not fill it: is --service-account-private-key-file set?"
		}
		return f
	})
}

// filled is how old a Secret is before it has to have its token.
const filled = 2 * time.Minute

// tokenFault says why the API server refuses a token, in words that are the same for
// all that are refused for one cause; "" where it does not, or that is not known.
func (c *Case) tokenFault(o *trust.Objects, t *trust.StoredToken) string {
	differs := func(said, is string) bool { return said != "" && is != "" && said != is }
	switch {
	case t.Gone:
		return fmt.Sprintf("there is no service account %s/%s", t.Namespace, t.Account)
	case t.Empty:
		if c.At.Sub(t.Created) > filled {
			return "has no token yet: nobody fills it"
		}
		return ""
	case len(t.Faults) > 0:
		return bounded(strings.Join(t.Faults, "; "))
	case t.Judged && t.KeyID == "":
		return "none of the keys that verify tokens made its signature"
	case t.Judged && o.KeyIDs != nil && !slices.Contains(o.KeyIDs, t.KeyID):
		return fmt.Sprintf("it is signed with the key %s, which stands in a file and which the API server does not publish", t.KeyID)
	case differs(t.SaidNamespace, t.Namespace) || differs(t.SaidAccount, t.Account):
		return fmt.Sprintf("it is of service account %q/%q, and the Secret is for %s/%s", t.SaidNamespace, t.SaidAccount, t.Namespace, t.Account)
	case differs(t.SaidSecret, t.Secret):
		return fmt.Sprintf("it is of Secret %q, and stands in %s", t.SaidSecret, t.Secret)
	case differs(t.SaidUID, t.UID), differs(t.SaidUID, t.NowUID):
		return "it is of an earlier service account of the same name, with another uid"
	}
	return ""
}

func saTokenExpired(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var groups tokenGroups
	for i := range o.Tokens {
		if t := &o.Tokens[i]; !t.Expires.IsZero() && c.At.After(t.Expires) && c.tokenFault(o, t) == "" {
			groups.add("", t)
		}
	}
	return groups.findings(func(_ string, tokens []*trust.StoredToken) Finding {
		return Finding{Cause: fmt.Sprintf("the token of %s expired at %s", tokensNamed(tokens), date(tokens[0].Expires)), Fix: remakeToken(tokens[0])}
	})
}

// saTokenLegacy is worth knowing: whoever has read the Secret is the service account
// until it is deleted.
func saTokenLegacy(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var groups tokenGroups
	for i := range o.Tokens {
		t := &o.Tokens[i]
		switch {
		case t.Empty || !t.Expires.IsZero() || c.tokenFault(o, t) != "":
		case t.InvalidSince != "":
			groups.add("out", t)
		default:
			groups.add("good", t)
		}
	}
	return groups.findings(func(reason string, tokens []*trust.StoredToken) Finding {
		var each []string
		for _, t := range tokens[:min(len(tokens), 5)] {
			each = append(each, fmt.Sprintf("%s/%s (%s)", t.Namespace, t.Secret, lastUse(t)))
		}
		if n := len(tokens) - len(each); n > 0 {
			each = append(each, fmt.Sprintf("%d more", n))
		}
		if reason == "out" {
			return Finding{Cause: "tokens of Secrets that the API server refuses because nobody used them for long: " + strings.Join(each, ", "), Fix: "delete them, or let kube-controller-manager do so"}
		}
		return Finding{Cause: "tokens of Secrets that never expire: " + strings.Join(each, ", "), Fix: "use projected tokens, or kubectl create token, and delete the Secrets"}
	})
}

func lastUse(t *trust.StoredToken) string {
	if t.LastUsed == "" {
		return "not seen in use"
	}
	return "last used " + t.LastUsed
}
