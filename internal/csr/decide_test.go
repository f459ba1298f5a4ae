package csr_test

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
)

func TestDecisions(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		if seen[r.name] {
			t.Errorf("two rows have the name %q", r.name)
		}
		seen[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			w := r.from()
			r.change(w)
			got := w.review()
			var ids []string
			for _, reason := range got.Reasons {
				ids = append(ids, reason.ID)
				if reason.Message == "" || strings.ContainsFunc(reason.Message, func(c rune) bool { return c < ' ' || c > '~' }) || len(reason.Message) > 600 {
					t.Errorf("message of %s is no plain line: %q", reason.ID, reason.Message)
				}
			}
			slices.Sort(ids)
			want := slices.Sorted(slices.Values(r.ids))
			if got.Verdict != r.verdict || !slices.Equal(ids, want) {
				t.Errorf("got %s %v, want %s %v\n%v", got.Verdict, ids, r.verdict, want, got.Reasons)
			}
		})
	}
}

// What is documented is given, and what is given is documented.
func TestEachReasonHasARow(t *testing.T) {
	given := map[string]bool{}
	for _, r := range rows() {
		for _, id := range r.ids {
			given[fmt.Sprint(id, " ", r.verdict)] = true
		}
	}
	for _, m := range csr.Meanings() {
		for _, v := range m.Verdicts {
			if key := fmt.Sprint(m.ID, " ", v); !given[key] {
				t.Errorf("no row gives %s", key)
			} else {
				delete(given, key)
			}
		}
	}
	for key := range given {
		t.Errorf("Meanings does not have %s", key)
	}
}

func TestPermissions(t *testing.T) {
	tests := map[string]struct {
		from   func() *world
		change func(*world)
		want   string
	}{
		"a bootstrapper":                  {bootstrap, nothing, "nodeclient"},
		"a node":                          {renewal, nothing, "selfnodeclient"},
		"a node's name without its group": {renewal, func(w *world) { w.request.Groups = nil }, "nodeclient"},
		"a serving request":               {serving, nothing, ""},
		"a request by a rule":             {ruled, nothing, ""},
		"a request that does not parse":   {renewal, func(w *world) { w.text = junk }, ""},
		"a request that is approved":      {renewal, func(w *world) { w.request.State = csr.Approved }, ""},
		"a subject that is no node's":     {bootstrap, func(w *world) { w.shape.subject = [][]attribute{text(oidCN, "alice")} }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := test.from()
			test.change(w)
			w.assemble()
			if got := csr.Permission(w.request); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLookups(t *testing.T) {
	w := confirmed()
	w.shape.names = append(w.shape.names, dns("W1"), dns("10.0.0.1"), dns("*.test"))
	w.assemble()
	if diff := cmp.Diff([]string{"w1", "w1.example.test"}, csr.Lookups(w.request, w.policy)); diff != "" {
		t.Error(diff)
	}
	for i := range 100 {
		w.shape.names = append(w.shape.names, dns(fmt.Sprintf("n%d.test", i)))
	}
	w.assemble()
	if n := len(csr.Lookups(w.request, w.policy)); n != 20 {
		t.Errorf("DNS is to be asked for %d names", n)
	}
	w.policy.DNS = false
	if got := csr.Lookups(w.request, w.policy); got != nil {
		t.Errorf("the policy does not ask DNS, and yet for %v", got)
	}
}

func TestReadShowsWhatIsAsked(t *testing.T) {
	w := ruled()
	w.shape.names = []name{dns("A.test"), ip("203.0.113.1"), {context(7), "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x02"},
		{context(1), "a@example.test"}, {context(6), "spiffe://a/b"}}
	w.assemble()
	got, err := csr.Read(w.request.PEM)
	if err != nil {
		t.Fatal(err)
	}
	sum, ok := csr.KeySum(w.request.PEM)
	if !ok || sum != got.Key.Sum {
		t.Errorf("KeySum gives %x, Read %x", sum, got.Key.Sum)
	}
	want := &csr.Asked{CommonName: "alice", Organizations: []string{"dev", "ops"}, OrganizationalUnits: []string{"unit"},
		DNSNames: []string{"A.test"}, EmailAddresses: []string{"a@example.test"}, URIs: []string{"spiffe://a/b"},
		IPAddresses: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")},
		Key:         csr.Key{Kind: "ECDSA", Bits: 256, Sum: sha256.Sum256(marshalKey(keyP256().Public()))}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if _, ok := csr.KeySum([]byte("junk")); ok {
		t.Error("junk has a key")
	}
	if _, err := csr.Read([]byte("junk")); err == nil {
		t.Error("junk is a request")
	}
}
