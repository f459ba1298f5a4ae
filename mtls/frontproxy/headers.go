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

// names are those of headers, as fold has them.
type names struct {
	whole    map[string]bool
	prefixes []string
}

// standard are the names that are always meant, whatever the settings are.
func standard() names {
	n := names{whole: map[string]bool{}, prefixes: []string{fold(extraPrefix)}}
	for _, name := range []string{userHeader, uidHeader, groupHeader} {
		n.add(name)
	}
	return n
}

func (n names) add(name string) { n.whole[fold(name)] = true }

// has tells whether a header is one of them in any spelling.
func (n names) has(header string) bool {
	folded := fold(header)
	return n.whole[folded] || slices.ContainsFunc(n.prefixes, func(p string) bool { return strings.HasPrefix(folded, p) })
}

// fold makes spellings the same that some program takes for the same: whatever
// is behind a handler may be a CGI, for which X_Remote.User is X-Remote-User.
func fold(header string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, header)
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
