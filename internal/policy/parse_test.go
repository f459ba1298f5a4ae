package policy_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
)

const head = "apiVersion: kubepki.dev/v1alpha1\nkind: SigningPolicy\n"

const whole = head + `
bootstrapGroups: [system:bootstrappers, "system:serviceaccounts:machine-config"]
maxDuration:
  default: 8760h
  kubernetes.io/kubelet-serving: 720h
allowKeyEnciphermentWithECDSA: true
allowReadyNodeRejoin: true
allowSystemIdentities: true
cluster:
  domain: k8s.test
  serviceRanges: [172.20.0.0/16, "fd01::/108"]
  endpoints: [api.example.test, 192.0.2.1]
confirm:
  addressRanges: [192.0.2.0/24]
  addresses:
    w1: [w1, 192.0.2.11]
  dns: true
rules:
- name: people
  signerName: kubernetes.io/kube-apiserver-client
  approve: request.username == subject.commonName
`

func TestAWholePolicy(t *testing.T) {
	got, err := policy.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Rules) != 1 || got.Rules[0].Name != "people" || got.Rules[0].SignerName != csr.KubeAPIServerClientSigner {
		t.Errorf("rules are %v", got.Rules)
	}
	got.Rules = nil
	want := csr.Policy{
		BootstrapGroups:               []string{"system:bootstrappers", "system:serviceaccounts:machine-config"},
		MaxDuration:                   map[string]time.Duration{"": 8760 * time.Hour, csr.KubeletServingSigner: 720 * time.Hour},
		AllowKeyEnciphermentWithECDSA: true, AllowReadyNodeRejoin: true, AllowSystemIdentities: true,
		Cluster: csr.Cluster{Domain: "k8s.test", Endpoints: []string{"api.example.test", "192.0.2.1"},
			ServiceRanges: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16"), netip.MustParsePrefix("fd01::/108")}},
		AddressRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Addresses:     map[string][]string{"w1": {"w1", "192.0.2.11"}},
		DNS:           true,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyPolicyIsTheDefault(t *testing.T) {
	got, err := policy.Parse([]byte("# nothing but\n---\n" + head))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(csr.DefaultPolicy(), got); diff != "" {
		t.Error(diff)
	}
}

func TestNoBootstrapGroups(t *testing.T) {
	got, err := policy.Parse([]byte(head + "bootstrapGroups: []\n"))
	if err != nil || len(got.BootstrapGroups) != 0 {
		t.Errorf("got %v, %v", got.BootstrapGroups, err)
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	rule := func(lines string) string { return head + "rules:\n- " + strings.ReplaceAll(lines, "\n", "\n  ") + "\n" }
	users := "name: a\nsignerName: example.com/users\napprove: "
	tests := map[string]struct{ text, want string }{
		"nothing":                          {"", "apiVersion, kind"},
		"text":                             {"hello", "is no SigningPolicy"},
		"a list":                           {"- a", "is no SigningPolicy"},
		"another kind":                     {"apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\n", `"Cluster"`},
		"another version":                  {"apiVersion: kubepki.dev/v1\nkind: SigningPolicy\n", `"kubepki.dev/v1"`},
		"a tab":                            {head + "\tcluster: {}\n", "is not YAML"},
		"a second document":                {head + "---\n" + head, "more than one YAML document"},
		"a second document after an end":   {head + "...\n" + head, "more than one YAML document"},
		"a field that is not known":        {head + "allowEverything: true\n", `"allowEverything"`},
		"a field in other letters":         {head + "BootstrapGroups: []\n", `"BootstrapGroups"`},
		"a field of a rule":                {rule(users + "'true'\nwhen: 'true'"), `"rules[0].when"`},
		"a field twice":                    {head + "confirm: {dns: true}\nconfirm: {dns: false}\n", "confirm"},
		"a field of another type":          {head + "confirm: {dns: maybe}\n", "dns"},
		"a text for a list":                {head + "bootstrapGroups: system:bootstrappers\n", "bootstrapGroups"},
		"a field without a value":          {head + "confirm:\n  addresses:\n", "confirm.addresses: is empty"},
		"an element without a value":       {head + "bootstrapGroups: [a, ~]\n", "bootstrapGroups[1]: is empty"},
		"no range":                         {head + "confirm: {addressRanges: []}\n", "confirm.addressRanges: holds no range"},
		"an address for a range":           {head + "confirm: {addressRanges: [10.0.0.1]}\n", "confirm.addressRanges[0]"},
		"a range with bits beyond":         {head + "cluster: {serviceRanges: [10.96.0.0/12, 10.0.0.1/8]}\n", "cluster.serviceRanges[1]"},
		"a range of IPv4 in IPv6":          {head + "confirm: {addressRanges: ['::ffff:10.0.0.0/104']}\n", "confirm.addressRanges[0]"},
		"a duration that is none":          {head + "maxDuration: {default: forever}\n", "maxDuration.default"},
		"a duration that is short":         {head + "maxDuration: {default: 9m}\n", "maxDuration.default"},
		"a duration of no signer":          {head + "maxDuration: {kubelet: 1h}\n", "maxDuration.kubelet"},
		"a file that nobody can read":      {head + "confirm: {addressesFile: nodes.yaml}\n", "confirm.addressesFile"},
		"a rule without a name":            {rule("signerName: example.com/a\napprove: 'true'"), "rules[0].name"},
		"a rule without a signer":          {rule("name: a\napprove: 'true'"), "rules[0].signerName"},
		"a rule for no signer":             {rule("name: a\nsignerName: users\napprove: 'true'"), "rules[0].signerName"},
		"a rule for kubelets' clients":     {rule("name: a\nsignerName: kubernetes.io/kube-apiserver-client-kubelet\napprove: 'true'"), "is fixed"},
		"a rule for kubelets' servers":     {rule("name: a\nsignerName: kubernetes.io/kubelet-serving\napprove: 'true'"), "is fixed"},
		"two rules of one name":            {rule(users+"'true'") + "- name: a\n  signerName: example.com/b\n  approve: 'true'\n", "rules[1].name"},
		"a rule without an expression":     {rule(users + "' '"), "rules[0].approve: is not set"},
		"a rule that is a YAML bool":       {rule(users + "true"), "rules.approve: is a bool"},
		"a syntax error":                   {rule(users + "'subject.commonName =='"), `rules[0].approve: rule "a": line 1, column`},
		"a name that is not declared":      {rule(users + "subject.comonName == 'a'"), "undeclared reference"},
		"a text for a bool":                {rule(users + "subject.commonName"), "of type string"},
		"a type that is not known before":  {rule(users + "\"dyn(subject.commonName)\""), "of type dyn"},
		"a comparison of unlike types":     {rule(users + "key.bits == '2048'"), "no matching overload"},
		"an expression of great length":    {rule(users + "'" + strings.Repeat("true || ", 4000) + "true'"), "rules[0].approve"},
		"more rules than can be evaluated": {head + "rules:\n" + strings.Repeat("- {name: a, signerName: example.com/b, approve: 'true'}\n", 101), "more than 100"},
		"a policy of two megabytes":        {head + strings.Repeat("#\n", 1<<20), "larger than 1 MiB"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
				t.Errorf("got %v, want an error of one line with %q", err, test.want)
			}
		})
	}
}

func TestAddressesInAnotherFile(t *testing.T) {
	const inventory = "apiVersion: kubepki.dev/v1alpha1\nkind: NodeAddresses\naddresses:\n  w1: [192.0.2.11]\n"
	text := []byte(head + "confirm: {addressesFile: nodes.yaml}\n")
	got, err := policy.ParseWith(text, func(name string) ([]byte, error) {
		if name != "nodes.yaml" {
			t.Errorf("asked for %q", name)
		}
		return []byte(inventory), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{"w1": {"192.0.2.11"}}, got.Addresses); diff != "" {
		t.Error(diff)
	}
	for name, content := range map[string]string{"another kind": head, "no addresses": "apiVersion: kubepki.dev/v1alpha1\nkind: NodeAddresses\n"} {
		if _, err := policy.ParseWith(text, func(string) ([]byte, error) { return []byte(content), nil }); err == nil {
			t.Errorf("a file with %s is taken", name)
		}
	}
	if _, err := policy.ParseWith(text, func(string) ([]byte, error) { return nil, errors.New("no such file") }); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	both := []byte(head + "confirm: {addressesFile: nodes.yaml, addresses: {w1: []}}\n")
	if _, err := policy.ParseWith(both, nil); err == nil || !strings.Contains(err.Error(), "choose one") {
		t.Errorf("got %v", err)
	}
}
