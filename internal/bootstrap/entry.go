package bootstrap

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
	"k8s.io/cluster-bootstrap/util/secrets"
)

// Entry is a token as the cluster holds it, and what is wrong with it.
type Entry struct {
	Name        string // of the Secret
	ID          string // of Name, by which it is found and deleted; empty when Name is not of a token
	Token       Token  // zero when the Secret holds no token that can work
	Description string
	Created     time.Time
	Expires     time.Time // zero: never, or not readable
	Expired     bool
	Usages      []string // sorted
	Groups      []string // beside system:bootstrappers
	Findings    []Finding
}

// Finding is one fault of a token, in the words of kubepki verify.
type Finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"` // error, warning or info
	Field    string `json:"field,omitempty"`
	Cause    string `json:"cause"`
	Fix      string `json:"fix,omitempty"`
}

// Ids and severities of findings.
const (
	TokenMalformed = "bootstrap-token-malformed"
	TokenExpired   = "bootstrap-token-expired"
	TokenUnbounded = "bootstrap-token-unbounded"
	TokenUsage     = "bootstrap-token-usage"

	severityError, severityWarning, severityInfo = "error", "warning", "info"
)

// Read reads a Secret and judges it as kube-apiserver's authenticator
// (plugin/pkg/auth/authenticator/token/bootstrap) and kube-controller-manager's
// bootstrap-signer-controller do.
func Read(s *corev1.Secret, now time.Time) *Entry {
	e := &Entry{
		Name: s.Name, ID: idOfName(s.Name), Created: s.CreationTimestamp.Time,
		Description: secrets.GetData(s, api.BootstrapTokenDescriptionKey),
	}
	e.readToken(s)
	e.readExpiration(s, now)
	e.readUsages(s)
	e.readGroups(s)
	return e
}

// idOfName returns the id for which a Secret of this name is looked up.
func idOfName(name string) string {
	id, is := strings.CutPrefix(name, api.BootstrapTokenSecretPrefix)
	if !is || !IsTokenID(id) {
		return ""
	}
	return id
}

// deletion is the command that deletes this Secret, and no other one that its
// token-id may name.
func (e *Entry) deletion() string {
	if e.ID == "" {
		return "kubectl -n kube-system delete secret " + e.Name
	}
	return "kubepki token delete " + e.ID
}

func (e *Entry) find(id, severity, field, fix, cause string, args ...any) {
	e.Findings = append(e.Findings, Finding{ID: id, Severity: severity, Field: field, Cause: fmt.Sprintf(cause, args...), Fix: fix})
}

func (e *Entry) readToken(s *corev1.Secret) {
	remake := e.deletion() + " && kubepki token create"
	if s.Type != api.SecretTypeBootstrapToken {
		e.find(TokenMalformed, severityError, "type", remake, "the Secret is of type %q: only %s is a token", s.Type, api.SecretTypeBootstrapToken)
	}
	t := Token{secrets.GetData(s, api.BootstrapTokenIDKey), secrets.GetData(s, api.BootstrapTokenSecretKey)}
	switch {
	case !IsTokenID(t.id):
		e.find(TokenMalformed, severityError, "data."+api.BootstrapTokenIDKey, remake, "the id does not have 6 characters of a-z and 0-9")
	case e.ID == "":
		e.find(TokenMalformed, severityError, "metadata.name", remake, "the Secret of token %s has to be called %s: the API server finds it by its name", t.id, SecretName(t.id))
	case e.ID != t.id:
		e.find(TokenMalformed, severityError, "data."+api.BootstrapTokenIDKey, remake, "the Secret's name is of token %s, and its token-id of %s: the API server lets in neither by it", e.ID, t.id)
	case !util.IsValidBootstrapToken(t.Reveal()):
		e.find(TokenMalformed, severityError, "data."+api.BootstrapTokenSecretKey, remake, "the secret does not have 16 characters of a-z and 0-9")
	default:
		e.Token = t
	}
}

func (e *Entry) readExpiration(s *corev1.Secret, now time.Time) {
	const field = "data." + api.BootstrapTokenExpirationKey
	text := secrets.GetData(s, api.BootstrapTokenExpirationKey)
	e.Expires, _ = time.Parse(time.RFC3339, text)
	_, e.Expired = secrets.GetExpiration(s, now)
	const again = "kubepki token create"
	remake := e.deletion() + " && " + again
	switch {
	case s.DeletionTimestamp != nil:
		e.find(TokenExpired, severityWarning, "metadata.deletionTimestamp", again, "it is being deleted, and refused already")
	case text == "":
		e.find(TokenUnbounded, severityWarning, field, e.deletion()+" && kubepki token create --ttl 24h", "it never expires: whoever learns it can join nodes for ever")
	case e.Expired && e.Expires.IsZero():
		e.find(TokenExpired, severityWarning, field, remake, "the expiration is not a time (RFC 3339), which counts as expired")
	case e.Expired:
		e.find(TokenExpired, severityWarning, field, remake, "it expired at %s", e.Expires.UTC().Format(time.RFC3339))
	}
}

func (e *Entry) readUsages(s *corev1.Secret) {
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		usage, is := strings.CutPrefix(key, api.BootstrapTokenUsagePrefix)
		switch {
		case !is:
		case string(s.Data[key]) != "true":
			e.find(TokenUsage, severityWarning, "data."+key, "", "only the value true grants a usage: this one counts as absent")
		case !slices.Contains(api.KnownTokenUsages, usage):
			e.find(TokenUsage, severityWarning, "data."+key, "", "there is no such usage")
		default:
			e.Usages = append(e.Usages, usage)
		}
	}
	switch signs, authenticates := slices.Contains(e.Usages, Signing), slices.Contains(e.Usages, Authentication); {
	case !signs && !authenticates && e.bounded(s):
		// kubeadm makes one for upload-certs, to whose end another Secret is bound
		// (cmd/kubeadm/app/phases/copycerts).
		e.find(TokenUsage, severityInfo, "", "", "it has no usage: it does nothing but end, and what it owns with it")
	case !signs && !authenticates:
		e.find(TokenUsage, severityWarning, "", "", "it has no usage, and is good for nothing")
	case !signs:
		e.find(TokenUsage, severityInfo, "", "", "it may not sign: nodes cannot discover the cluster with it")
	case !authenticates:
		e.find(TokenUsage, severityInfo, "", "", "it may not authenticate: nodes discover the cluster with it, and cannot ask for a certificate")
	}
}

// bounded tells of a token that ends, and was not meant for anything.
func (e *Entry) bounded(s *corev1.Secret) bool {
	meant := false
	for key := range s.Data {
		meant = meant || strings.HasPrefix(key, api.BootstrapTokenUsagePrefix)
	}
	return !e.Expires.IsZero() && !meant
}

func (e *Entry) readGroups(s *corev1.Secret) {
	const field = "data." + api.BootstrapTokenExtraGroupsKey
	if text := secrets.GetData(s, api.BootstrapTokenExtraGroupsKey); text != "" {
		e.Groups = strings.Split(text, ",")
	}
	if !slices.Contains(e.Usages, Authentication) {
		return
	}
	for _, g := range e.Groups {
		if util.ValidateBootstrapGroupName(g) != nil {
			e.find(TokenUsage, severityWarning, field, "", "group %q is not system:bootstrappers:NAME: the API server refuses the token", g)
			return
		}
	}
	if !slices.Contains(e.Groups, NodeGroup) {
		e.find(TokenUsage, severityInfo, field, "", "it is not in group %s, to which kubeadm binds the roles of nodes that join", NodeGroup)
	}
}
