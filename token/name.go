package token

import "strings"

// Lengths in bytes that names may have (RFC 1035 section 2.3.4).
const (
	maxLabel     = 63
	maxSubdomain = 253
)

// isLabel tells whether a text can be the name of a namespace: a lower-case
// label of RFC 1123. It says what content.IsDNS1123Label of
// k8s.io/apimachinery/pkg/api/validate says, whose regular expressions would
// take a third of the time that a token is judged in.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return lowerOnly(s)
}

// isSubdomain tells whether a text can be the name of any other object: labels
// with dots between them, each of any length, as content.IsDNS1123Subdomain has
// it.
func isSubdomain(s string) bool {
	if len(s) > maxSubdomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || label[0] == '-' || label[len(label)-1] == '-' || !lowerOnly(label) {
			return false
		}
	}
	return true
}

func lowerOnly(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
