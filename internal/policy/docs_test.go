package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/policy"
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/csr-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheExamplesOfTheDocumentationAreRead(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page(t), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	p, err := policy.Parse([]byte(blocks[0][1]))
	if err != nil {
		t.Fatal(err)
	}
	r, a := example()
	a.DNSNames, a.IPAddresses, a.URIs, a.EmailAddresses = nil, nil, nil, nil
	a.Organizations = []string{"dev"}
	if ok, err := p.Rules[0].Approve(r, a); err != nil || !ok {
		t.Errorf("got %v, %v", ok, err)
	}
	a.Organizations = []string{"dev", "ops"}
	if ok, err := p.Rules[0].Approve(r, a); err != nil || ok {
		t.Errorf("got %v, %v", ok, err)
	}
	if _, err := policy.ParseAddresses([]byte(blocks[1][1])); err != nil {
		t.Error(err)
	}
}

func TestTheVariablesOfTheDocumentationAreDeclared(t *testing.T) {
	_, table, _ := strings.Cut(page(t), "| variable | type | holds |")
	table, _, _ = strings.Cut(table, "\n\n")
	variables := regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\| ([a-z(), ]+) \\|").FindAllStringSubmatch(table, -1)
	if len(variables) != 16 {
		t.Fatalf("%d variables", len(variables))
	}
	for _, v := range variables {
		_, err := policy.Parse([]byte(head + "rules: [{name: a, signerName: example.com/a, approve: " + v[1] + "}]"))
		if err == nil || !strings.Contains(err.Error(), "is of type "+v[2]+":") {
			t.Errorf("%s is not a %s: %v", v[1], v[2], err)
		}
	}
}
