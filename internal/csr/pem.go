package csr

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// MaxPEM is the size in bytes of the largest spec.request that is looked at: a
// request with an RSA key of 8192 bits and hundreds of names is smaller.
const MaxPEM = 64 << 10

const pemType = "CERTIFICATE REQUEST"

// fault is what makes a request unreadable.
type fault struct{ id, message string }

func (f *fault) Error() string { return f.message }

func faulty(id, format string, args ...any) *fault {
	return &fault{id, fmt.Sprintf(format, args...)}
}

// decodePEM returns the DER of a text that is one PEM block and nothing else.
// It is stricter than encoding/pem, which skips what it does not understand:
// what another reader might find in the text must not differ from what is
// judged. White space around the block is no text.
func decodePEM(text []byte) ([]byte, *fault) {
	if len(text) > MaxPEM {
		return nil, faulty(requestTooLarge, "the request is larger than %d bytes", MaxPEM)
	}
	const begin, end = "-----BEGIN ", "-----END "
	text = bytes.Trim(text, " \t\r\n")
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	first = bytes.TrimRight(first, " \t\r")
	switch {
	case len(text) == 0:
		return nil, faulty(pemMalformed, "the request is empty")
	case !bytes.HasPrefix(first, []byte(begin)) && bytes.Contains(text, []byte(begin)):
		return nil, faulty(pemSurplus, "there is text before the PEM block")
	case !bytes.HasPrefix(first, []byte(begin)) || !bytes.HasSuffix(first, []byte("-----")) || len(first) < len(begin)+5:
		return nil, faulty(pemMalformed, "the request is no PEM block")
	}
	if label := first[len(begin) : len(first)-5]; string(label) != pemType {
		return nil, faulty(pemWrongType, "the PEM block is of type %s, wanted is %q", quote(string(label)), pemType)
	}
	body, after, ended := bytes.Cut(rest, []byte(end))
	after, closed := bytes.CutPrefix(after, []byte(pemType+"-----"))
	switch {
	case !ended || !closed || len(body) == 0 || body[len(body)-1] != '\n':
		return nil, faulty(pemMalformed, "the PEM block has no end")
	case len(after) > 0:
		return nil, faulty(pemSurplus, "there is text after the PEM block")
	case bytes.IndexByte(body, ':') >= 0:
		return nil, faulty(pemHeaders, "the PEM block has headers")
	case hasEmptyLine(body):
		// OpenSSL takes what is above for headers.
		return nil, faulty(pemMalformed, "the PEM block has an empty line")
	}
	// Decode ignores the ends of lines, and nothing else.
	der := make([]byte, base64.StdEncoding.DecodedLen(len(body)))
	n, err := base64.StdEncoding.Strict().Decode(der, body)
	if err != nil || n == 0 {
		return nil, faulty(pemMalformed, "the PEM block is not base64")
	}
	return der[:n], nil
}

func hasEmptyLine(body []byte) bool {
	plain := bytes.ReplaceAll(body, []byte("\r"), nil)
	return plain[0] == '\n' || bytes.Contains(plain, []byte("\n\n"))
}

// quote shows foreign text: bounded, and in characters that do no harm.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%+q and so on", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}
