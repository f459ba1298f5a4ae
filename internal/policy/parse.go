package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
)

// The kinds that are read here, and their version.
const (
	APIVersion    = "kubepki.dev/v1alpha1"
	Kind          = "SigningPolicy"
	AddressesKind = "NodeAddresses"
)

// MaxRules bounds the rules of a policy: each may be evaluated for a request.
const MaxRules = 100

type document struct {
	typeMeta                      `json:",inline"`
	BootstrapGroups               []string          `json:"bootstrapGroups"`
	MaxDuration                   map[string]string `json:"maxDuration"`
	AllowKeyEnciphermentWithECDSA bool              `json:"allowKeyEnciphermentWithECDSA"`
	AllowReadyNodeRejoin          bool              `json:"allowReadyNodeRejoin"`
	AllowSystemIdentities         bool              `json:"allowSystemIdentities"`
	Cluster                       cluster           `json:"cluster"`
	Confirm                       confirm           `json:"confirm"`
	Rules                         []rule            `json:"rules"`
}

type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type cluster struct {
	Domain        string   `json:"domain"`
	ServiceRanges []string `json:"serviceRanges"`
	Endpoints     []string `json:"endpoints"`
}

// confirm are the second sources of a node's addresses.
type confirm struct {
	AddressRanges []string            `json:"addressRanges"`
	Addresses     map[string][]string `json:"addresses"`
	AddressesFile string              `json:"addressesFile"`
	DNS           bool                `json:"dns"`
}

type rule struct {
	Name       string `json:"name"`
	SignerName string `json:"signerName"`
	Approve    string `json:"approve"`
}

// Parse reads a policy that stands alone. Each error names the field.
func Parse(data []byte) (csr.Policy, error) { return ParseWith(data, nil) }

// ParseWith reads a policy whose confirm.addressesFile may name another file,
// which read returns the content of. The name is as it stands in the policy.
func ParseWith(data []byte, read func(name string) ([]byte, error)) (csr.Policy, error) {
	var d document
	if err := decode(data, Kind, &d); err != nil {
		return csr.Policy{}, err
	}
	p := csr.DefaultPolicy()
	if d.BootstrapGroups != nil {
		p.BootstrapGroups = d.BootstrapGroups
	}
	p.AllowKeyEnciphermentWithECDSA = d.AllowKeyEnciphermentWithECDSA
	p.AllowReadyNodeRejoin = d.AllowReadyNodeRejoin
	p.AllowSystemIdentities = d.AllowSystemIdentities
	p.Cluster.Domain, p.Cluster.Endpoints = d.Cluster.Domain, d.Cluster.Endpoints
	p.DNS = d.Confirm.DNS
	var err error
	if p.Cluster.ServiceRanges, err = prefixes("cluster.serviceRanges", d.Cluster.ServiceRanges); err != nil {
		return csr.Policy{}, err
	}
	if err := p.Cluster.Validate(); err != nil {
		return csr.Policy{}, fmt.Errorf("cluster: %w", err)
	}
	if p.AddressRanges, err = prefixes("confirm.addressRanges", d.Confirm.AddressRanges); err != nil {
		return csr.Policy{}, err
	}
	if p.MaxDuration, err = durations(d.MaxDuration); err != nil {
		return csr.Policy{}, err
	}
	if p.Addresses, err = d.Confirm.addresses(read); err != nil {
		return csr.Policy{}, err
	}
	p.Rules, err = rules(d.Rules)
	if err != nil {
		return csr.Policy{}, err
	}
	return p, nil
}

// ParseAddresses reads an inventory: the names and addresses of nodes, by the
// name of the node.
func ParseAddresses(data []byte) (map[string][]string, error) {
	var d struct {
		typeMeta  `json:",inline"`
		Addresses map[string][]string `json:"addresses"`
	}
	if err := decode(data, AddressesKind, &d); err != nil {
		return nil, err
	}
	if d.Addresses == nil {
		return nil, errors.New("addresses: is not set")
	}
	return d.Addresses, nil
}

func (c confirm) addresses(read func(string) ([]byte, error)) (map[string][]string, error) {
	const field = "confirm.addressesFile"
	switch {
	case c.AddressesFile == "":
		return c.Addresses, nil
	case c.Addresses != nil:
		return nil, fmt.Errorf("%s: is set, and confirm.addresses too: choose one", field)
	case read == nil:
		return nil, fmt.Errorf("%s: no other file can be read here: use confirm.addresses", field)
	}
	data, err := read(c.AddressesFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	addresses, err := ParseAddresses(data)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, c.AddressesFile, err)
	}
	return addresses, nil
}

func prefixes(field string, texts []string) ([]netip.Prefix, error) {
	if texts != nil && len(texts) == 0 {
		return nil, fmt.Errorf("%s: holds no range: name one, or leave it out", field)
	}
	var all []netip.Prefix
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() || p != p.Masked() {
			return nil, fmt.Errorf("%s[%d]: %q is not a range of addresses such as 10.0.0.0/8 or fd00::/64", field, i, text)
		}
		all = append(all, p)
	}
	return all, nil
}

// durations reads the lives by signer; "default" stands for all others.
func durations(texts map[string]string) (map[string]time.Duration, error) {
	var all map[string]time.Duration
	for signer, text := range texts {
		d, err := time.ParseDuration(text)
		if err != nil || d < 10*time.Minute {
			return nil, fmt.Errorf("maxDuration.%s: %q is not a duration of 10m or more, such as 8760h", signer, text)
		}
		if all == nil {
			all = map[string]time.Duration{}
		}
		if signer == "default" {
			signer = ""
		} else if err := checkSigner(signer); err != nil {
			return nil, fmt.Errorf("maxDuration.%s: %w, or default", signer, err)
		}
		all[signer] = d
	}
	return all, nil
}

func checkSigner(name string) error {
	domain, path, ok := strings.Cut(name, "/")
	if !ok || path == "" || !strings.Contains(domain, ".") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q is not the name of a signer such as example.com/users", name)
	}
	return nil
}

func rules(given []rule) ([]csr.Rule, error) {
	if len(given) > MaxRules {
		return nil, fmt.Errorf("rules: are more than %d", MaxRules)
	}
	var all []csr.Rule
	names := map[string]bool{}
	for i, r := range given {
		field := fmt.Sprintf("rules[%d]", i)
		switch {
		case r.Name == "":
			return nil, fmt.Errorf("%s.name: is not set", field)
		case names[r.Name]:
			return nil, fmt.Errorf("%s.name: %q is the name of another rule", field, r.Name)
		case r.SignerName == csr.KubeAPIServerClientKubeletSigner, r.SignerName == csr.KubeletServingSigner:
			return nil, fmt.Errorf("%s.signerName: what holds for %s is fixed: no rule can change it", field, r.SignerName)
		case strings.TrimSpace(r.Approve) == "":
			return nil, fmt.Errorf("%s.approve: is not set: it is an expression in CEL that is true or false", field)
		}
		if err := checkSigner(r.SignerName); err != nil {
			return nil, fmt.Errorf("%s.signerName: %w", field, err)
		}
		names[r.Name] = true
		approve, err := compile(r.Approve)
		if err != nil {
			return nil, fmt.Errorf("%s.approve: rule %q: %w", field, r.Name, err)
		}
		all = append(all, csr.Rule{Name: r.Name, SignerName: r.SignerName, Approve: approve})
	}
	return all, nil
}
