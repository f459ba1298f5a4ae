package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
)

// rule returns what an expression of a policy does.
func rule(t testing.TB, expression string) func(csr.Request, *csr.Asked) (bool, error) {
	t.Helper()
	p, err := policy.Parse([]byte(head + "rules:\n- name: a\n  signerName: example.com/users\n  approve: >-\n    " + expression + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Rules[0].Approve
}

func example() (csr.Request, *csr.Asked) {
	life := int32(3600)
	return csr.Request{Name: "csr-1", SignerName: "example.com/users", Username: "alice", Groups: []string{"dev"}, Usages: []string{"client auth"},
			Extra: map[string][]string{"department": {"a", "b"}}, ExpirationSeconds: &life},
		&csr.Asked{CommonName: "alice", Organizations: []string{"dev", "ops"}, OrganizationalUnits: []string{"unit"}, DNSNames: []string{"a.test"},
			EmailAddresses: []string{"alice@example.test"}, URIs: []string{"spiffe://a/b"},
			IPAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, Key: csr.Key{Kind: "RSA", Bits: 3072}}
}

func TestExpressions(t *testing.T) {
	for expression, want := range map[string]bool{
		`true`: true, `false`: false,
		`request.username == subject.commonName`:                                               true,
		`request.name == "csr-1" && request.signerName == "example.com/users"`:                 true,
		`"dev" in request.groups && request.groups.all(g, g in subject.organizations)`:         true,
		`request.usages == ["client auth"]`:                                                    true,
		`request.extra["department"] == ["a", "b"]`:                                            true,
		`request.expirationSeconds > 0 && request.expirationSeconds <= 86400`:                  true,
		`subject.organizations == ["dev"]`:                                                     false,
		`subject.organizationalUnits.exists(u, u == "unit")`:                                   true,
		`dnsNames.all(n, n.endsWith(".test"))`:                                                 true,
		`size(dnsNames) == 0`:                                                                  false,
		`emailAddresses == [request.username + "@example.test"]`:                               true,
		`uris.all(u, u.startsWith("spiffe://a/"))`:                                             true,
		`ipAddresses.exists(a, cidr("192.0.2.0/24").containsIP(a))`:                            true,
		`ipAddresses.all(a, cidr("192.0.2.0/24").containsIP(a))`:                               false,
		`key.kind == "RSA" && key.bits >= 3072`:                                                true,
		`sets.contains(["dev", "ops", "web"], subject.organizations)`:                          true,
		`subject.commonName.matches("^[a-z]+$") && subject.commonName.lowerAscii() == "alice"`: true,
	} {
		t.Run(expression, func(t *testing.T) {
			got, err := rule(t, expression)(example())
			if err != nil || got != want {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestExpressionsThatCannotBeEvaluated(t *testing.T) {
	for expression, want := range map[string]string{
		`request.extra["none"] == ["a"]`:              "no such key",
		`dnsNames[7] == "a"`:                          "index out of bounds",
		`cidr(subject.commonName).prefixLength() > 0`: "CIDR",
	} {
		t.Run(expression, func(t *testing.T) {
			got, err := rule(t, expression)(example())
			if err == nil || got || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestExpressionsThatNeverEndAreStopped(t *testing.T) {
	r, a := example()
	for i := range 1000 {
		a.DNSNames = append(a.DNSNames, fmt.Sprintf("n%d.test", i))
	}
	start := time.Now()
	got, err := rule(t, `dnsNames.all(a, dnsNames.all(b, dnsNames.all(c, a + b + c != "")))`)(r, a)
	if err == nil || got {
		t.Errorf("got %v, %v", got, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAnEmptyRequestIsEmptyToExpressions(t *testing.T) {
	got, err := rule(t, `size(request.groups) + size(request.extra) + size(request.usages) + size(subject.organizations) + size(dnsNames) + size(ipAddresses) == 0 && request.expirationSeconds == 0 && key.kind == ""`)(csr.Request{}, &csr.Asked{})
	if err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
}

// A rule fails closed: its error leaves the request undecided, with its name.
func TestAFailingRuleLeavesUndecided(t *testing.T) {
	p, err := policy.Parse([]byte(head + "rules:\n- {name: people, signerName: example.com/users, approve: 'request.extra[\"none\"] == [\"a\"]'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, a := example()
	if ok, err := p.Rules[0].Approve(r, a); ok || err == nil {
		t.Errorf("got %v, %v", ok, err)
	}
}

func TestARuleMayBeUsedByManyAtOnce(t *testing.T) {
	approve := rule(t, `request.username == subject.commonName`)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 100 {
				r, a := example()
				if i%2 == 1 {
					r.Username = "bob"
				}
				if got, err := approve(r, a); err != nil || got != (i%2 == 0) {
					t.Errorf("got %v, %v", got, err)
				}
			}
		})
	}
	wait.Wait()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(head + "rules: [{name: a, signerName: example.com/a, approve: '[1,2].all(x, x > 0)'}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
			return
		}
		for _, r := range p.Rules {
			if r.SignerName == csr.KubeletServingSigner || r.SignerName == csr.KubeAPIServerClientKubeletSigner {
				t.Errorf("a rule is for %s", r.SignerName)
			}
			_, _ = r.Approve(example())
		}
	})
}
