package policy

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// WorkloadKind is the kind of a policy for CertificateRequests.
const WorkloadKind = "WorkloadPolicy"

type workloadDocument struct {
	typeMeta    `json:",inline"`
	MaxDuration string `json:"maxDuration"`
	// Otherwise is what becomes of a request that no rule approves: Wait or Deny.
	Otherwise string `json:"otherwise"`
	// TrustRequesters says that cert-manager's admission fills spec.username and what
	// belongs to it. Without it they are what the requester has written.
	TrustRequesters bool           `json:"trustRequesters"`
	Rules           []workloadRule `json:"rules"`
}

type workloadRule struct {
	Name        string          `json:"name"`
	Issuers     []issuerPattern `json:"issuers"`
	Namespaces  []string        `json:"namespaces"`
	AllowCA     bool            `json:"allowCA"`
	MaxDuration string          `json:"maxDuration"`
	Approve     string          `json:"approve"`
	Deny        string          `json:"deny"`
}

type issuerPattern struct {
	Group string `json:"group"` // "": cert-manager.io
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// ParseWorkload reads a policy for CertificateRequests. Each error names the field.
func ParseWorkload(data []byte) (*workload.Policy, error) {
	var d workloadDocument
	if err := decode(data, WorkloadKind, &d); err != nil {
		return nil, err
	}
	p := &workload.Policy{}
	switch d.Otherwise {
	case "", "Wait":
	case "Deny":
		p.DenyOthers = true
	default:
		return nil, fmt.Errorf("otherwise: %q is neither Wait nor Deny", d.Otherwise)
	}
	var err error
	if p.MaxDuration, err = life("maxDuration", d.MaxDuration); err != nil {
		return nil, err
	}
	if len(d.Rules) > MaxRules {
		return nil, fmt.Errorf("rules: are more than %d", MaxRules)
	}
	names := map[string]bool{}
	for i, r := range d.Rules {
		field := fmt.Sprintf("rules[%d]", i)
		switch {
		case r.Name == "":
			return nil, fmt.Errorf("%s.name: is not set", field)
		case names[r.Name]:
			return nil, fmt.Errorf("%s.name: %q is the name of another rule", field, r.Name)
		}
		names[r.Name] = true
		rule, err := r.read(d.TrustRequesters)
		if err != nil {
			return nil, fmt.Errorf("%s.%w (rule %q)", field, err, r.Name)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p, nil
}

func life(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 10*time.Minute {
		return 0, fmt.Errorf("%s: %q is not a duration of 10m or more, such as 2160h", field, text)
	}
	return d, nil
}

func (r workloadRule) read(trusted bool) (workload.Rule, error) {
	rule := workload.Rule{Name: r.Name, Namespaces: r.Namespaces, AllowCA: r.AllowCA}
	if len(r.Issuers) == 0 {
		return rule, errors.New("issuers: names no issuer")
	}
	if len(r.Namespaces) == 0 {
		return rule, errors.New(`namespaces: names no namespace: "*" stands for all`)
	}
	for i, n := range r.Namespaces {
		if err := checkPattern(n); err != nil {
			return rule, fmt.Errorf("namespaces[%d]: %w", i, err)
		}
	}
	for i, issuer := range r.Issuers {
		pattern, err := issuer.read()
		if err != nil {
			return rule, fmt.Errorf("issuers[%d].%w", i, err)
		}
		rule.Issuers = append(rule.Issuers, pattern)
	}
	var err error
	if rule.MaxDuration, err = life("maxDuration", r.MaxDuration); err != nil {
		return rule, err
	}
	if strings.TrimSpace(r.Approve+r.Deny) == "" {
		return rule, errors.New("approve: is not set, nor is deny: they are expressions in CEL that are true or false")
	}
	if r.Approve != "" {
		if rule.Approve, rule.Speaks, err = compileWorkload(r.Approve, trusted); err != nil {
			return rule, fmt.Errorf("approve: %w", err)
		}
	}
	if r.Deny != "" {
		if rule.Deny, _, err = compileWorkload(r.Deny, trusted); err != nil {
			return rule, fmt.Errorf("deny: %w", err)
		}
	}
	return rule, nil
}

func (i issuerPattern) read() (workload.IssuerPattern, error) {
	p := workload.IssuerPattern{Group: i.Group, Kind: i.Kind, Name: i.Name}
	if p.Group == "" {
		p.Group = certmanager.GroupName
	}
	if p.Kind == "" || p.Group == certmanager.GroupName && p.Kind != cmapi.IssuerKind && p.Kind != cmapi.ClusterIssuerKind {
		return p, fmt.Errorf("kind: %q is neither Issuer nor ClusterIssuer", i.Kind)
	}
	if err := checkPattern(i.Name); err != nil {
		return p, fmt.Errorf("name: %w", err)
	}
	return p, nil
}

func checkPattern(text string) error {
	if _, err := path.Match(text, ""); err != nil || text == "" || strings.ContainsAny(text, "/ ") {
		return fmt.Errorf("%q is not a name, also with * and ?", text)
	}
	return nil
}

// requesterVariables are of a value only where cert-manager's admission fills them.
var requesterVariables = []string{"request.username", "request.groups", "request.uid"}

// workloadEnvironment declares what the expressions of a WorkloadPolicy may speak of.
func workloadEnvironment() (*cel.Env, error) {
	text, list := cel.StringType, cel.ListType(cel.StringType)
	return environment(
		cel.Variable("request.namespace", text),
		cel.Variable("request.uid", text),
		cel.Variable("request.duration", cel.DurationType),
		cel.Variable("request.isCA", cel.BoolType),
		cel.Variable(workload.VarOtherAttributes, list),
		cel.Variable(workload.VarOtherNames, list),
		cel.Variable("issuer.group", text),
		cel.Variable("issuer.kind", text),
		cel.Variable("issuer.name", text),
		cel.Variable("certificate", text),
	)
}

func workloadVariables(q workload.Petition, s *workload.Seen) map[string]any {
	return map[string]any{
		"request.namespace": q.Namespace, "request.name": q.Name, "request.username": q.Username, "request.groups": q.Groups, "request.uid": q.UID,
		"request.duration": s.Duration, "request.isCA": s.IsCA, workload.VarUsages: s.Usages,
		workload.VarCommonName: s.CommonName, workload.VarOrganizations: s.Organizations,
		workload.VarOrganizationalUnits: s.OrganizationalUnits, workload.VarOtherAttributes: s.OtherAttributes,
		workload.VarDNSNames: s.DNSNames, workload.VarEmailAddresses: s.EmailAddresses, workload.VarIPAddresses: s.IPAddresses,
		workload.VarURIs: s.URIs, workload.VarOtherNames: s.OtherNames,
		"key.kind": s.KeyKind, "key.bits": int64(s.KeyBits),
		"issuer.group": s.Issuer.Group, "issuer.kind": s.Issuer.Kind, "issuer.name": s.Issuer.Name, "certificate": q.Certificate,
	}
}

// compileWorkload turns an expression into what a rule does, and the variables that it
// speaks of. What it returns may be used by several goroutines.
func compileWorkload(expression string, trusted bool) (func(workload.Petition, *workload.Seen) (bool, error), []string, error) {
	env, err := workloadEnvironment()
	if err != nil {
		return nil, nil, fmt.Errorf("preparing CEL: %w", err)
	}
	ast, program, err := compileIn(env, expression)
	if err != nil {
		return nil, nil, err
	}
	spoken := map[string]bool{}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if r.Name != "" {
			spoken[r.Name] = true
		}
	}
	for _, name := range requesterVariables {
		if spoken[name] && !trusted {
			return nil, nil, fmt.Errorf("speaks of %s, which without cert-manager's admission webhook is what the requester writes: set trustRequesters where that webhook runs", name)
		}
	}
	evaluator := func(q workload.Petition, s *workload.Seen) (bool, error) {
		return evaluate(program, workloadVariables(q, s))
	}
	return evaluator, slices.Sorted(maps.Keys(spoken)), nil
}
