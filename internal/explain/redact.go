package explain

import (
	"regexp"
	"sync"
)

// secrets are what must not be repeated from a log line: tokens of service
// accounts (also without their last part), bootstrap tokens, whatever follows
// Bearer or Basic or stands in a flag or field for a secret, private keys, and
// passwords in URLs.
var secrets = sync.OnceValue(func() []secret {
	return []secret{
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`), "<private key>"},
		{regexp.MustCompile(`e[wy][A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(\.[A-Za-z0-9_-]*)?`), "<token>"},
		{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["'\[]*)(bearer|basic)?[ +]*[^\s"'\]]+`), "$1$2 <token>"},
		{regexp.MustCompile(`(?i)\b(bearer|basic)( +|%20)"?[A-Za-z0-9._~+/=-]{16,}`), "$1 <token>"},
		{regexp.MustCompile(`(?i)\b(base64url\.bearer\.authorization\.k8s\.io\.)[A-Za-z0-9_-]+`), "$1<token>"},
		{regexp.MustCompile(`(?i)((?:access_?token|token|password|passwd|secret|api-?key|client-key-data|token-secret)["']?\s*[=:]\s*["']?)[^\s"',&}]{6,}`), "$1<secret>"},
		{regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`), "<bootstrap token>"},
		{regexp.MustCompile(`(://[^/\s:@]+:)[^/\s@]+@`), "$1<password>@"},
	}
})

// secret is a form of what is secret, and what stands in its place.
type secret struct {
	form *regexp.Regexp
	with string
}

// redact takes secrets out of a text.
func redact(text string) string {
	for _, s := range secrets() {
		text = s.form.ReplaceAllString(text, s.with)
	}
	return text
}
