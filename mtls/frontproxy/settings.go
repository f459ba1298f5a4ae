package frontproxy

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kubepki/kubepki/mtls"
)

// Where kube-apiserver publishes its settings, for each extension API server
// (k8s.io/kubernetes/pkg/controlplane/controller/clusterauthenticationtrust).
const (
	ConfigMapNamespace = "kube-system"
	ConfigMapName      = "extension-apiserver-authentication"
)

// The keys of that ConfigMap.
const (
	keyBundle        = "requestheader-client-ca-file"
	keyAllowedNames  = "requestheader-allowed-names"
	keyUserHeaders   = "requestheader-username-headers"
	keyUIDHeaders    = "requestheader-uid-headers"
	keyGroupHeaders  = "requestheader-group-headers"
	keyExtraPrefixes = "requestheader-extra-headers-prefix"
	keyClientBundle  = "client-ca-file"
)

const (
	// maxSettings is how many bytes a ConfigMap may have.
	maxSettings = 1 << 20
	// maxNames is how many names one of the lists may have.
	maxNames = 100
)

// Settings says whose word is taken for who a user is. It is shared between
// goroutines: once it is in use, nothing of it may be changed.
type Settings struct {
	// Bundle holds the authorities of front proxies; nil: no proxy is believed.
	Bundle *mtls.Bundle
	// AllowedNames are the common names that a proxy's certificate may have, letter
	// by letter. As with kube-apiserver, none means all: whoever has any client
	// certificate of Bundle may say that they are anybody.
	AllowedNames []string
	// UserHeaders, UIDHeaders and GroupHeaders are the headers in which a proxy says
	// who the user is, ExtraPrefixes what the names of the others begin with.
	// Capitals and small letters are the same. The first user header and the first
	// UID header that have a value count, and all values of all group headers.
	UserHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
	// ClientBundle holds the authorities of users who come by themselves, with their
	// own certificate; nil: nobody may.
	ClientBundle *mtls.Bundle
}

// Source gives the settings of now. [live.Source] is one, and so is a
// [*Settings], which never changes.
//
// [live.Source]: https://pkg.go.dev/github.com/kubepki/kubepki/mtls/frontproxy/live#Source
type Source interface {
	// Settings returns what is so now. It is called for each request, by several
	// goroutines at once: it should return without waiting, and the same pointer as
	// long as nothing has changed. An error, which is for the program's own log,
	// fails the request.
	Settings() (*Settings, error)
}

// Settings returns the settings themselves, so that they can be used as a [Source].
func (s *Settings) Settings() (*Settings, error) { return s, nil }

// ParseSettings reads the data of the ConfigMap extension-apiserver-authentication.
// The error names the key. A bundle that is missing is nil; that both are is an
// error, and so is what [Settings.Check] finds.
func ParseSettings(data map[string]string) (*Settings, error) {
	size := 0
	for key, value := range data {
		size += len(key) + len(value)
	}
	if size > maxSettings {
		return nil, fmt.Errorf("the settings have %d bytes, and may have %d", size, maxSettings)
	}
	s := &Settings{}
	for key, to := range map[string]**mtls.Bundle{keyBundle: &s.Bundle, keyClientBundle: &s.ClientBundle} {
		if len(data[key]) == 0 {
			continue
		}
		var err error
		if *to, err = mtls.ParseBundle([]byte(data[key])); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	for key, to := range map[string]*[]string{
		keyAllowedNames: &s.AllowedNames, keyUserHeaders: &s.UserHeaders, keyUIDHeaders: &s.UIDHeaders,
		keyGroupHeaders: &s.GroupHeaders, keyExtraPrefixes: &s.ExtraPrefixes,
	} {
		if len(data[key]) == 0 {
			continue
		}
		if err := json.Unmarshal([]byte(data[key]), to); err != nil {
			return nil, fmt.Errorf("%s: a list of texts in JSON is expected: %w", key, err)
		}
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}

// Check tells what makes settings unsafe, or of no use: no bundle at all; a
// header's name that no request can have, or an empty prefix, which every header
// has; and, without AllowedNames, an authority of users that is one of proxies too,
// or is signed by one, by which each client of the cluster could say that it is
// anybody (kube-apiserver does not start with one authority in both:
// k8s.io/kubernetes/pkg/kubeapiserver/options/authentication.go). [Guard] takes no
// settings that have a fault.
func (s *Settings) Check() error {
	if s.Bundle == nil && s.ClientBundle == nil {
		return fmt.Errorf("there is neither %s nor %s, and so nobody to believe", keyBundle, keyClientBundle)
	}
	if len(s.AllowedNames) > maxNames {
		return fmt.Errorf("%s: %d names, and %d are allowed", keyAllowedNames, len(s.AllowedNames), maxNames)
	}
	for _, l := range []struct {
		key   string
		names []string
	}{{keyUserHeaders, s.UserHeaders}, {keyUIDHeaders, s.UIDHeaders}, {keyGroupHeaders, s.GroupHeaders}, {keyExtraPrefixes, s.ExtraPrefixes}} {
		if len(l.names) > maxNames {
			return fmt.Errorf("%s: %d names, and %d are allowed", l.key, len(l.names), maxNames)
		}
		for _, name := range l.names {
			if !isToken(name) {
				return fmt.Errorf("%s: %.80q is no name that a header can have", l.key, name)
			}
		}
	}
	if len(s.AllowedNames) == 0 && s.Bundle != nil && s.ClientBundle != nil {
		return s.checkApart()
	}
	return nil
}

// checkApart finds authorities of users whose certificates are good for proxies too.
func (s *Settings) checkApart() error {
	for _, proxies := range s.Bundle.Anchors() {
		for _, users := range s.ClientBundle.Anchors() {
			if same(proxies, users) || bytes.Equal(proxies.RawSubject, users.RawIssuer) && users.CheckSignatureFrom(proxies) == nil {
				return fmt.Errorf("the authority %.80q in %s is in %s too, or signed by one there: each client could say that it is anybody; name the proxies in %s",
					users.Subject.String(), keyClientBundle, keyBundle, keyAllowedNames)
			}
		}
	}
	return nil
}

// same tells whether two authorities sign alike: one may have been certified anew.
func same(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// allows tells whether a proxy of the bundle is one whose word is taken.
func (s *Settings) allows(proxy mtls.Peer) error {
	name := proxy.Certificate.Subject.CommonName
	if len(s.AllowedNames) == 0 || name != "" && slices.Contains(s.AllowedNames, name) {
		return nil
	}
	return fmt.Errorf("the proxy %s is none of those that are allowed, %q", proxy, s.AllowedNames)
}

var errNoSettings = errors.New("the source of settings has none")

// rules are settings as requests need them.
type rules struct {
	*Settings
	user, uid, group []string // in the spelling that net/http has them in
	theirs           names    // what is taken from each request
}

func newRules(s *Settings) (*rules, error) {
	if s == nil {
		return nil, errNoSettings
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("the settings: %w", err)
	}
	r := &rules{Settings: s, theirs: standard()}
	for from, to := range map[*[]string]*[]string{&s.UserHeaders: &r.user, &s.UIDHeaders: &r.uid, &s.GroupHeaders: &r.group} {
		for _, name := range *from {
			*to = append(*to, http.CanonicalHeaderKey(name))
			r.theirs.whole = append(r.theirs.whole, name)
		}
	}
	r.theirs.prefixes = append(r.theirs.prefixes, s.ExtraPrefixes...)
	return r, nil
}
