package workload

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Policy says who may ask which names from which issuer. It is read from a file by
// internal/policy and is not changed then: it is safe for concurrent use.
type Policy struct {
	// MaxDuration bounds the life of certificates for which no rule has a bound of its
	// own; 0: none.
	MaxDuration time.Duration
	// DenyOthers denies what no rule approves, where all could be evaluated. Without it
	// such requests wait for somebody else's approval.
	DenyOthers bool
	Rules      []Rule
}

// Rule is one rule of a [Policy]. It is for the requests that name one of its issuers
// from one of its namespaces.
type Rule struct {
	Name       string
	Issuers    []IssuerPattern // at least one
	Namespaces []string        // patterns of [path.Match]; at least one
	// AllowCA lets certificates sign others.
	AllowCA bool
	// MaxDuration bounds the life in place of the policy's; 0: that one holds.
	MaxDuration time.Duration
	// Speaks are the variables that Approve looks at. What else a request asks for is
	// never approved by this rule.
	Speaks []string
	// Approve and Deny tell whether an expression is true; nil: there is none. An error
	// says nothing of the request.
	Approve, Deny func(Petition, *Seen) (bool, error)
}

// IssuerPattern names issuers: their name is a pattern of [path.Match].
type IssuerPattern struct{ Group, Kind, Name string }

// Petition is a request for a certificate, beside what it asks for.
type Petition struct {
	Namespace, Name string
	// Username, Groups and UID are the requester as the object has him. Who he is only
	// cert-manager's admission makes sure.
	Username, UID string
	Groups        []string
	// Certificate is the name of the Certificate whose request it is; "": of none, or it
	// asks for something else than that.
	Certificate string
}

// Outcome is what a policy comes to. The zero value decides nothing.
type Outcome uint8

// The outcomes.
const (
	Waits Outcome = iota
	Approves
	Denies
)

// The reasons of a [Ruling]. They are stable.
const (
	RuleApproves     = "rule-approves"
	OwnIssuer        = "own-issuer"
	RuleDenies       = "rule-denies"
	CANotAllowed     = "ca-not-allowed"
	DurationTooLong  = "duration-too-long"
	ForeignEncoding  = "foreign-encoding"
	NothingApproves  = "nothing-approves"
	NamespaceUnnamed = "namespace-unnamed"
	NotSeen          = "not-seen"
	RuleFailed       = "rule-failed"
)

// Ruling is an outcome and why. Message is for the administrator: who is denied is not
// told of the policy.
type Ruling struct {
	Outcome     Outcome
	ID, Message string
	Rule        string // that decided; "": none did
}

// Decide decides on a request.
//   - A ClusterIssuer, and any issuer of another group, is for the namespaces alone that a
//     rule names beside it.
//   - An Issuer of cert-manager.io is in the namespace of the request. Where no rule is
//     for it, it is approved.
//   - What breaks a limit, and what a rule denies, is denied.
//   - A rule approves only what it speaks of, and what can be seen.
//   - An error never denies and never approves.
func (p *Policy) Decide(q Petition, a *Asked) Ruling {
	rules := p.rules(q.Namespace, a.Issuer)
	if len(rules) == 0 {
		return p.withoutRule(a)
	}
	if id, err := p.limit(rules, a); err != nil {
		return Ruling{Outcome: Denies, ID: id, Message: err.Error()}
	}
	seen, err := a.Seen()
	if err != nil {
		return p.otherwise(Ruling{ID: NotSeen, Message: err.Error()})
	}
	waits := Ruling{ID: NothingApproves, Message: "no rule approves it"}
	for _, r := range rules {
		if r.Deny == nil {
			continue
		}
		switch denies, err := r.Deny(q, seen); {
		case err != nil:
			// It might deny, so that no other rule may approve.
			return Ruling{ID: RuleFailed, Rule: r.Name, Message: fmt.Sprintf("deny of rule %q: %v", r.Name, err)}
		case denies:
			return Ruling{Outcome: Denies, ID: RuleDenies, Rule: r.Name, Message: fmt.Sprintf("rule %q denies it", r.Name)}
		}
	}
	failed := false
	for _, r := range rules {
		ruling := p.ask(r, q, a, seen)
		if ruling.Outcome == Approves {
			return ruling
		}
		if ruling.ID == RuleFailed && !failed || waits.ID == NothingApproves && ruling.ID == NotSeen {
			waits, failed = ruling, ruling.ID == RuleFailed
		}
	}
	if failed {
		return waits
	}
	return p.otherwise(waits)
}

// otherwise is what becomes of a request that nothing approves.
func (p *Policy) otherwise(r Ruling) Ruling {
	if p.DenyOthers {
		r.Outcome = Denies
	}
	return r
}

// ask asks one rule.
func (p *Policy) ask(r *Rule, q Petition, a *Asked, seen *Seen) Ruling {
	if r.Approve == nil {
		return Ruling{ID: NothingApproves}
	}
	if _, err := p.limit([]*Rule{r}, a); err != nil { // another rule allows more, and may approve it
		return Ruling{ID: NothingApproves}
	}
	approves, err := r.Approve(q, seen)
	switch {
	case err != nil:
		return Ruling{ID: RuleFailed, Rule: r.Name, Message: fmt.Sprintf("approve of rule %q: %v", r.Name, err)}
	case !approves:
		return Ruling{ID: NothingApproves}
	}
	if unspoken := seen.unspoken(r.Speaks); unspoken != "" {
		return Ruling{ID: NotSeen, Rule: r.Name, Message: fmt.Sprintf("rule %q would approve it, but does not speak of %s", r.Name, unspoken)}
	}
	return Ruling{Outcome: Approves, ID: RuleApproves, Rule: r.Name, Message: fmt.Sprintf("rule %q approves it", r.Name)}
}

// withoutRule decides on a request that no rule is for.
func (p *Policy) withoutRule(a *Asked) Ruling {
	if isOwnIssuer(a.Issuer) {
		if id, err := p.limit(nil, a); err != nil {
			return Ruling{Outcome: Denies, ID: id, Message: err.Error()}
		}
		return Ruling{Outcome: Approves, ID: OwnIssuer, Message: "the issuer is of the request's own namespace"}
	}
	ruling := Ruling{ID: NamespaceUnnamed, Message: fmt.Sprintf("no rule names the namespace beside %s %q", a.Issuer.Kind, a.Issuer.Name)}
	if !p.Names(a.Issuer) {
		return ruling // it is others' to decide
	}
	return p.otherwise(ruling)
}

// Names tells whether requests to an issuer are this policy's to decide, from whatever
// namespace: those of cert-manager.io are, others where a rule names them.
func (p *Policy) Names(ref cmmeta.IssuerReference) bool {
	ref = IssuerOf(ref)
	return ref.Group == cmapi.SchemeGroupVersion.Group || slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.names(ref) })
}

// Limit tells why a request must not be signed, whoever has approved it. A nil policy
// has no limits. The namespace is "" for a request that is in none.
func (p *Policy) Limit(namespace string, a *Asked) error {
	if p == nil {
		return nil
	}
	_, err := p.limit(p.rules(namespace, a.Issuer), a)
	return err
}

// limit holds a request against what the most generous of some rules allows.
func (p *Policy) limit(rules []*Rule, a *Asked) (id string, err error) {
	signs := a.IsCA || a.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0
	if signs && !slices.ContainsFunc(rules, func(r *Rule) bool { return r.AllowCA }) {
		return CANotAllowed, errors.New("it is for an authority, and no rule has allowCA for it")
	}
	longest, bounded := p.MaxDuration, p.MaxDuration > 0
	if len(rules) > 0 {
		longest, bounded = 0, true
	}
	for _, r := range rules {
		most := r.MaxDuration
		if most == 0 {
			most = p.MaxDuration
		}
		longest, bounded = max(longest, most), bounded && most > 0
	}
	if bounded && a.Duration > longest {
		return DurationTooLong, fmt.Errorf("it is for %s, and the longest life is %s", a.Duration, longest)
	}
	if err := checkEncoding(a.RawSubject); err != nil {
		return ForeignEncoding, err
	}
	return "", nil
}

// rules are those that are for an issuer and a namespace.
func (p *Policy) rules(namespace string, ref cmmeta.IssuerReference) []*Rule {
	var all []*Rule
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.names(ref) && slices.ContainsFunc(r.Namespaces, func(pattern string) bool { return matches(pattern, namespace) }) {
			all = append(all, r)
		}
	}
	return all
}

func (r *Rule) names(ref cmmeta.IssuerReference) bool {
	return slices.ContainsFunc(r.Issuers, func(i IssuerPattern) bool {
		return i.Group == ref.Group && i.Kind == ref.Kind && matches(i.Name, ref.Name)
	})
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

func isOwnIssuer(ref cmmeta.IssuerReference) bool {
	return ref.Group == cmapi.SchemeGroupVersion.Group && ref.Kind == cmapi.IssuerKind
}

// CertificateOf is the name of the Certificate that a request is of: owner, which is the
// one that its owner reference names as far as it is there, if that has made it and asks
// for the same; otherwise "". Anybody can write an owner into a request.
func CertificateOf(r *cmapi.CertificateRequest, owner *cmapi.Certificate, asked *Asked) string {
	ref := metav1.GetControllerOfNoCopy(r)
	if ref == nil || owner == nil || ref.Kind != cmapi.CertificateKind || ref.Name != owner.Name || ref.UID != owner.UID || owner.Namespace != r.Namespace {
		return ""
	}
	wish, err := WishOf(&owner.Spec)
	if err != nil || len(Differences(wish, &asked.Wish)) > 0 {
		return ""
	}
	return owner.Name
}

// PetitionOf is what a rule sees of a request beside what it asks for; certificate is as
// of [CertificateOf].
func PetitionOf(r *cmapi.CertificateRequest, certificate string) Petition {
	return Petition{Namespace: r.Namespace, Name: r.Name, Username: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Certificate: certificate}
}

// SignerName is the name by which RBAC knows an issuer for approvals, from a namespace
// (cert-manager internal/webhook/admission/certificaterequest/approval).
func SignerName(ref cmmeta.IssuerReference, namespace string) string {
	ref = IssuerOf(ref)
	resource := strings.ToLower(ref.Kind) + "s." + ref.Group
	if ref.Kind == cmapi.ClusterIssuerKind {
		return resource + "/" + ref.Name
	}
	return resource + "/" + namespace + "." + ref.Name
}
