package frontproxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/mtls"
)

// The headers in which kube-apiserver says who a user is
// (k8s.io/client-go/transport/round_trippers.go).
const (
	userHeader  = "X-Remote-User"
	uidHeader   = "X-Remote-Uid"
	groupHeader = "X-Remote-Group"
	extraPrefix = "X-Remote-Extra-"
)

// names are those of headers that are meant in each spelling.
type names struct{ whole, prefixes []string }

// standard are the names that are always meant, whatever the settings are.
func standard() names {
	return names{whole: []string{userHeader, uidHeader, groupHeader}, prefixes: []string{extraPrefix}}
}

// has tells whether a header is one of them.
func (n names) has(header string) bool {
	return slices.ContainsFunc(n.whole, func(name string) bool { return len(name) == len(header) && begins(header, name) }) ||
		slices.ContainsFunc(n.prefixes, func(prefix string) bool { return begins(header, prefix) })
}

// begins tells whether a header begins with a prefix, for some program at least:
// whatever is behind a handler may be a CGI, for which X_Remote.User is X-Remote-User.
func begins(header, prefix string) bool {
	if len(header) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if fold(header[i]) != fold(prefix[i]) {
			return false
		}
	}
	return true
}

func fold(b byte) byte {
	switch {
	case 'A' <= b && b <= 'Z':
		return b + 'a' - 'A'
	case 'a' <= b && b <= 'z', '0' <= b && b <= '9':
		return b
	}
	return '-'
}

// without returns headers that have none of these.
func (n names) without(h http.Header) http.Header {
	left := make(http.Header, len(h))
	for name, values := range h {
		if !n.has(name) {
			left[name] = slices.Clone(values)
		}
	}
	return left
}

// isToken tells whether a text can be the name of a header (RFC 9110 section
// 5.6.2).
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || !isTokenByte(byte(r)) })
}

func isTokenByte(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// errAmbiguous tells that a proxy that is believed has said two things.
var errAmbiguous = errors.New("the proxy says twice who the user is")

// named is whom the headers name, which must come from a proxy that is believed;
// ok is false where they name nobody.
func (r *rules) named(h http.Header) (u mtls.User, ok bool, err error) {
	u.Name, err = one(h, r.user)
	if err != nil || u.Name == "" {
		return mtls.User{}, false, err
	}
	if u.UID, err = one(h, r.uid); err != nil {
		return mtls.User{}, false, err
	}
	for _, name := range r.group {
		for _, group := range h[name] {
			if group != "" {
				u.Groups = append(u.Groups, group)
			}
		}
	}
	u.Extra = r.extra(h)
	return u, true, nil
}

// one is the value of the only one of some headers that has one. That of several
// is not chosen: a proxy that adds its own to those of a client names both.
func one(h http.Header, names []string) (string, error) {
	found := ""
	for _, name := range names {
		values := h[name]
		if len(values) > 1 {
			return "", fmt.Errorf("%w: the header %s stands %d times", errAmbiguous, name, len(values))
		}
		if len(values) == 0 || values[0] == "" {
			continue
		}
		if found != "" && found != values[0] {
			return "", fmt.Errorf("%w: the headers %q differ", errAmbiguous, names)
		}
		found = values[0]
	}
	return found, nil
}

// extra reads what is under the prefixes, in the order of the headers' names.
// Keys are in small letters, and bytes that no header's name can have are
// percent-encoded; one that is not well encoded is taken as it stands
// (k8s.io/apiserver/pkg/authentication/request/headerrequest).
func (r *rules) extra(h http.Header) map[string][]string {
	var all map[string][]string
	for _, prefix := range r.ExtraPrefixes {
		for _, name := range slices.Sorted(maps.Keys(h)) {
			if len(name) < len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
				continue
			}
			key := strings.ToLower(name[len(prefix):])
			if decoded, err := url.PathUnescape(key); err == nil {
				key = decoded
			}
			if all == nil {
				all = map[string][]string{}
			}
			all[key] = append(all[key], h[name]...)
		}
	}
	return all
}
