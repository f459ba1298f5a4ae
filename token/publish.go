package token

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/kubepki/kubepki/internal/trust"
)

// Where an issuer publishes its documents, below its URL and on an API server.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	JWKSPath      = "/openid/v1/jwks"
)

// MaxAge is for how many seconds others may keep what an issuer publishes, and
// so for how long a new key has to be published before it signs
// (k8s.io/kubernetes/pkg/serviceaccount/jwt.go, GetCacheAgeMaxSeconds).
const MaxAge = 3600

// JWKS returns the keys as a JSON Web Key Set (RFC 7517), byte for byte as an
// API server with these keys publishes it.
func (s *KeySet) JWKS() ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Algorithm: k.Algorithm(), Use: "sig"})
	}
	return json.Marshal(set)
}

// Discovery is the part of an issuer's metadata that verifiers of tokens need
// (OpenID Connect Discovery 1.0 section 3), in the order in which Kubernetes
// writes it (k8s.io/kubernetes/pkg/serviceaccount/openidmetadata.go).
type Discovery struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// Discovery returns the metadata of an issuer that signs with the keys. The
// issuer and the URI of the keys must be https URLs, without query or fragment
// in the issuer. An empty URI is that of Kubernetes, [JWKSPath] below the
// issuer.
func (s *KeySet) Discovery(issuer, jwksURI string) (*Discovery, error) {
	if err := CheckIssuerURL(issuer); err != nil {
		return nil, err
	}
	if jwksURI == "" {
		jwksURI = below(issuer, JWKSPath)
	}
	if err := checkHTTPS("the URI of the keys", jwksURI); err != nil {
		return nil, err
	}
	d := &Discovery{Issuer: issuer, JWKSURI: jwksURI, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}}
	for _, k := range s.keys {
		if a := k.Algorithm(); !slices.Contains(d.Algorithms, a) {
			d.Algorithms = append(d.Algorithms, a)
		}
	}
	slices.Sort(d.Algorithms)
	return d, nil
}

// ErrNotDiscovery tells that a text is no metadata of an issuer at all.
var ErrNotDiscovery = errors.New("no metadata of an issuer (OpenID Connect Discovery 1.0 section 3)")

// ParseDiscovery reads the metadata of an issuer. Its URI of the keys must be an
// https URL. What is no such metadata is [ErrNotDiscovery], with the cause.
func ParseDiscovery(data []byte) (*Discovery, error) {
	not := func(cause string) error { return fmt.Errorf("%w: %s", ErrNotDiscovery, cause) }
	if len(data) > trust.MaxPEM {
		return nil, not(fmt.Sprintf("larger than %d bytes", trust.MaxPEM))
	}
	if problem := bounded(data, maxKeyCommas); problem != "" {
		return nil, not("the JSON " + problem)
	}
	var d Discovery
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, not(withoutContent(err))
	}
	if d.Issuer == "" || d.JWKSURI == "" {
		return nil, not("issuer or jwks_uri is missing")
	}
	if err := checkHTTPS("jwks_uri", d.JWKSURI); err != nil {
		return nil, err
	}
	return &d, nil
}

// CheckIssuerURL refuses an issuer that others could not discover: one that is
// no https URL, or has a query or fragment (OpenID Connect Discovery 1.0 section
// 3). Tokens of such an issuer are good all the same.
func CheckIssuerURL(issuer string) error {
	if err := checkHTTPS("the issuer", issuer); err != nil {
		return err
	}
	if u, err := url.Parse(issuer); err != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return fmt.Errorf("the issuer %s has a query or fragment: it may have neither", quote(issuer))
	}
	return nil
}

func checkHTTPS(what, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s %s is not a URL like https://example.com", what, quote(text))
	case u.User != nil: // which is not repeated: there may be a password in it
		return fmt.Errorf("%s has a user in its URL: leave that out", what)
	}
	return nil
}

// DiscoveryURL returns where the metadata of an issuer is.
func DiscoveryURL(issuer string) string { return below(issuer, DiscoveryPath) }

// below joins as OpenID Connect Discovery 1.0 section 4.1 does: a slash at the
// end of the issuer is taken away first.
func below(issuer, path string) string {
	if n := len(issuer); n > 0 && issuer[n-1] == '/' {
		issuer = issuer[:n-1]
	}
	return issuer + path
}
