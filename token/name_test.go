package token

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/validate/content"
)

// Names are good here exactly when Kubernetes' own code calls them good.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a", "a-b", "-a", "a-", "A", "a.b", "a..b", ".a", "a.", "a_b", "ä", "1", "a\n", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 253), strings.Repeat("a", 254), strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 127)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := isLabel(s), len(content.IsDNS1123Label(s)) == 0; got != want {
			t.Errorf("label %q: %v, Kubernetes says %v", s, got, want)
		}
		if got, want := isSubdomain(s), len(content.IsDNS1123Subdomain(s)) == 0; got != want {
			t.Errorf("subdomain %q: %v, Kubernetes says %v", s, got, want)
		}
	})
}
