package frontproxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/mtls"
)

// SetUser names a user to an extension API server, in the headers that
// kube-apiserver uses (X-Remote-User, X-Remote-Uid, X-Remote-Group and
// X-Remote-Extra-KEY), and takes out what the client has sent: those headers in
// each spelling, what makes a proxy on the way take them out again (Connection:
// X-Remote-Group), trailers of that name, and Authorization, which was for the
// proxy. The server believes it only on a connection with the proxy's certificate.
//
// The user arrives as given, or there is an error and nothing is changed: headers
// cannot carry a name that is empty, has control characters or begins or ends
// with a space (" admin" would arrive as "admin"). Keys of Extra arrive in small
// letters, as they do from kube-apiserver.
func SetUser(r *http.Request, u mtls.User) error {
	set, err := headersOf(u)
	if err != nil {
		return err
	}
	theirs := standard()
	h := theirs.without(r.Header)
	deleteFold(h, "Authorization")
	keepConnection(h, theirs)
	maps.Copy(h, set)
	r.Header = h
	if r.Trailer != nil {
		r.Trailer = theirs.without(r.Trailer)
	}
	return nil
}

// headersOf are the headers that name a user.
func headersOf(u mtls.User) (http.Header, error) {
	h := http.Header{}
	if u.Name == "" {
		return nil, errors.New("the user has no name")
	}
	add := func(header string, values ...string) error {
		for _, v := range values {
			if !survives(v) {
				return fmt.Errorf("the user cannot be named in the header %.80s: %.80q would not arrive as it is", header, v)
			}
			h[header] = append(h[header], v)
		}
		return nil
	}
	if err := add(userHeader, u.Name); err != nil {
		return nil, err
	}
	if u.UID != "" {
		if err := add(uidHeader, u.UID); err != nil {
			return nil, err
		}
	}
	if slices.Contains(u.Groups, "") {
		return nil, errors.New("the user has a group without a name")
	}
	if err := add(groupHeader, u.Groups...); err != nil {
		return nil, err
	}
	for key, values := range u.Extra {
		header := http.CanonicalHeaderKey(extraPrefix + escapeKey(key))
		if _, twice := h[header]; twice {
			return nil, fmt.Errorf("two keys of the user's extra are the same in small letters: %.80q", key)
		}
		if err := add(header, values...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// survives tells whether a header's value arrives as it is: net/http refuses
// control characters, and cuts off space at both ends.
func survives(value string) bool {
	for _, b := range []byte(value) {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return strings.Trim(value, " \t") == value
}

// escapeKey percent-encodes what no header's name can have
// (k8s.io/client-go/transport/round_trippers.go, headerKeyEscape).
func escapeKey(key string) string {
	var b strings.Builder
	for _, c := range []byte(key) {
		if !isTokenByte(c) || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// keepConnection takes names out of the list of headers that are for the next
// hop alone.
func keepConnection(h http.Header, theirs names) {
	for name, values := range h {
		if !strings.EqualFold(name, "Connection") {
			continue
		}
		var left []string
		for _, v := range values {
			tokens := slices.DeleteFunc(strings.Split(v, ","), func(token string) bool { return theirs.has(strings.TrimSpace(token)) })
			if len(tokens) > 0 {
				left = append(left, strings.Join(tokens, ","))
			}
		}
		if len(left) == 0 {
			delete(h, name)
			continue
		}
		h[name] = left
	}
}

// RoundTripper returns what sends requests on behalf of users: user tells of each
// request whose it is, by its context, and [SetUser] names that user to the
// server. A request whose user is not known or cannot be named is not sent.
//
// next connects, and shows the proxy's certificate: an [http.Transport] with
// [mtls.ClientConfig]. Behind a [net/http/httputil.ReverseProxy] this is the
// right place, because what is set in its Director can be taken out again by the
// client's Connection header.
func RoundTripper(next http.RoundTripper, user func(*http.Request) (mtls.User, error)) http.RoundTripper {
	return &roundTripper{next, user}
}

type roundTripper struct {
	next http.RoundTripper
	user func(*http.Request) (mtls.User, error)
}

// RoundTrip does not change the request, as its interface demands.
func (t *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	named := r.Clone(r.Context())
	user, err := t.user(r)
	if err == nil {
		err = SetUser(named, user)
	}
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the interface demands it
		}
		return nil, fmt.Errorf("the front proxy: %w", err)
	}
	return t.next.RoundTrip(named)
}
