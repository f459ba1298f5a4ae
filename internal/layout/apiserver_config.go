package layout

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// The groups and versions of kube-apiserver's configuration files
// (k8s.io/apiserver pkg/apis/apiserver). All three versions of one group have
// the fields that are read here in the same place.
const (
	configGroup = "apiserver.config.k8s.io"
	oldGroup    = "apiserver.k8s.io"
)

var configVersions = []string{"v1", "v1beta1", "v1alpha1"}

// configureAPIServer reads the configuration files that kube-apiserver's flags
// name, and notes the flags that exclude each other.
func (r *nodeReader) configureAPIServer(c *trust.Component) {
	r.readAuthentication(c)
	r.readAuthorization(c)
	r.readAdmission(c)
	r.readEgress(c)
	r.readEncryption(c)
	r.readTokens(c)
	conflictingFlags(c)
}

// conflict notes a setting that kube-apiserver refuses.
func conflict(c *trust.Component, at trust.Place, fix, reason string, args ...any) {
	c.Conflicts = append(c.Conflicts, trust.Conflict{Place: at, Reason: fmt.Sprintf(reason, args...), Fix: fix})
}

// conflictingFlags are those that kube-apiserver refuses together (k/k
// pkg/kubeapiserver/options/authentication.go, pkg/controlplane/apiserver/options/options.go).
func conflictingFlags(c *trust.Component) {
	if _, external := c.Flag("service-account-signing-endpoint"); external {
		for _, flag := range []string{"service-account-signing-key-file", "service-account-key-file"} {
			if _, both := c.Flag(flag); both {
				conflict(c, c.Setting(flag), "take --service-account-signing-key-file and --service-account-key-file out", "--%s is set, and --service-account-signing-endpoint too: kube-apiserver refuses both", flag)
				break // the other goes with it
			}
		}
	}
	for _, flag := range []string{"service-account-jwks-uri", "oidc-issuer-url"} {
		if v, set := c.Flag(flag); set && v != "" && !isHTTPS(v) {
			conflict(c, c.Setting(flag), "give --"+flag+" a URL that begins with https://", "--%s is no https URL, which kube-apiserver refuses", flag)
		}
	}
}

func isHTTPS(v string) bool {
	u, err := url.Parse(v)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

// decodeConfig decodes a configuration file that kube-apiserver decodes
// strictly. What this reader does not know is said as not seen.
func (r *nodeReader) decodeConfig(c *trust.Component, at string, data []byte, kind, group string, versions []string, into any) bool {
	unknown, err := decodeKind(data, kind, group, versions, into)
	switch {
	case err != nil:
		r.refuse(c, at, err)
	case unknown != "":
		r.notSeen(at, unknown+", a version of "+kind+" that is not known here: what it sets is not judged")
	default:
		if fields := unknownFields(data, into); len(fields) > 0 {
			r.notSeen(at, "fields of "+kind+" that are not known here, and not judged: "+listedFields(fields))
		}
		return true
	}
	return false
}

func listedFields(fields []string) string {
	if len(fields) > 4 {
		return strings.Join(fields[:4], ", ") + fmt.Sprintf(" and %d more", len(fields)-4)
	}
	return strings.Join(fields, ", ")
}

// authenticationConfiguration is k8s.io/apiserver/pkg/apis/apiserver/v1
// AuthenticationConfiguration.
type authenticationConfiguration struct {
	typeMeta
	JWT []struct {
		Issuer struct {
			URL                  string   `json:"url"`
			DiscoveryURL         string   `json:"discoveryURL"`
			CertificateAuthority string   `json:"certificateAuthority"`
			Audiences            []string `json:"audiences"`
			AudienceMatchPolicy  string   `json:"audienceMatchPolicy"`
			EgressSelectorType   string   `json:"egressSelectorType"`
		} `json:"issuer"`
		ClaimValidationRules any `json:"claimValidationRules"`
		ClaimMappings        any `json:"claimMappings"`
		UserValidationRules  any `json:"userValidationRules"`
	} `json:"jwt"`
	Anonymous *struct {
		Enabled    bool `json:"enabled"`
		Conditions []struct {
			Path string `json:"path"`
		} `json:"conditions"`
	} `json:"anonymous"`
}

type typeMeta struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
}

// readAuthentication reads the file of --authentication-config. Its anonymous
// takes the place of --anonymous-auth, its jwt that of --oidc-* (k/k
// pkg/kubeapiserver/options/authentication.go, ToAuthenticationConfig).
func (r *nodeReader) readAuthentication(c *trust.Component) {
	at, data, ok := r.readConfiguration(c, "authentication-config")
	if at == "" {
		return
	}
	for _, flag := range slices.Sorted(maps.Keys(c.Flags)) {
		if strings.HasPrefix(flag, "oidc-") {
			conflict(c, c.Setting(flag), "move the issuer into jwt of "+at+", and take the --oidc flags out", "--%s is set, and --authentication-config too: kube-apiserver refuses both", flag)
			break // one of them is enough
		}
	}
	var f authenticationConfiguration
	if !ok || !r.decodeConfig(c, at, data, "AuthenticationConfiguration", configGroup, configVersions, &f) {
		return
	}
	r.setAnonymous(c, at, &f)
	issuers := map[string]string{} // the field of each
	for i, j := range f.JWT {
		field := fmt.Sprintf("jwt[%d].issuer", i)
		where := r.place(at).In(field + ".url")
		own := slices.Contains(c.Flags["service-account-issuer"], j.Issuer.URL)
		switch other, twice := issuers[j.Issuer.URL]; {
		case !isHTTPS(j.Issuer.URL):
			conflict(c, where, "give it a URL that begins with https://", "%s.url is no https URL, which kube-apiserver refuses", field)
		case twice:
			conflict(c, where, "merge the two", "%s.url is the issuer of %s already: kube-apiserver refuses it", field, other)
		case own:
			conflict(c, where, "take the issuer out: --service-account-issuer says it already", "%s.url is the issuer of service accounts too: kube-apiserver refuses it", field)
		case len(j.Issuer.Audiences) == 0:
			conflict(c, r.place(at).In(field+".audiences"), "name the client ids for which its tokens are", "%s.audiences is empty, which kube-apiserver refuses", field)
		}
		issuers[j.Issuer.URL] = field
		if j.Issuer.CertificateAuthority != "" {
			ca := r.place(at).In(field + ".certificateAuthority")
			m, _ := ParseMaterial(ca, trust.RoleBundle, []byte(j.Issuer.CertificateAuthority))
			r.node.Materials = append(r.node.Materials, m)
			c.Remotes = append(c.Remotes, trust.Remote{Name: "issuer of tokens", Setting: where, URL: j.Issuer.URL, CA: ca, CASetting: ca})
		}
	}
}

func (r *nodeReader) setAnonymous(c *trust.Component, at string, f *authenticationConfiguration) {
	a := f.Anonymous
	if a == nil {
		return
	}
	if _, flag := c.Flag("anonymous-auth"); flag {
		conflict(c, c.Setting("anonymous-auth"), "take --anonymous-auth out", "--anonymous-auth is set, and anonymous in %s too: kube-apiserver refuses both", at)
		return
	}
	switch {
	case !a.Enabled && len(a.Conditions) > 0:
		conflict(c, r.place(at).In("anonymous.conditions"), "set anonymous.enabled: true, or take the conditions out", "anonymous.conditions are set, and anonymous.enabled is not: kube-apiserver refuses that")
	case len(a.Conditions) == 0:
		r.set(c, "anonymous-auth", fmt.Sprint(a.Enabled), at, "anonymous.enabled")
	}
	// With conditions only some paths are open, which is no flag's meaning.
}

// authorizationConfiguration is AuthorizationConfiguration of the same package.
type authorizationConfiguration struct {
	typeMeta
	Authorizers []struct {
		Type    string `json:"type"`
		Name    string `json:"name"`
		Webhook *struct {
			AuthorizedTTL                            any `json:"authorizedTTL"`
			CacheAuthorizedRequests                  any `json:"cacheAuthorizedRequests"`
			UnauthorizedTTL                          any `json:"unauthorizedTTL"`
			CacheUnauthorizedRequests                any `json:"cacheUnauthorizedRequests"`
			Timeout                                  any `json:"timeout"`
			SubjectAccessReviewVersion               any `json:"subjectAccessReviewVersion"`
			MatchConditionSubjectAccessReviewVersion any `json:"matchConditionSubjectAccessReviewVersion"`
			FailurePolicy                            any `json:"failurePolicy"`
			ConnectionInfo                           struct {
				Type           string `json:"type"`
				KubeConfigFile string `json:"kubeConfigFile"`
			} `json:"connectionInfo"`
			MatchConditions any `json:"matchConditions"`
		} `json:"webhook"`
	} `json:"authorizers"`
}

// modeFlags are the flags that --authorization-config excludes (k/k
// pkg/kubeapiserver/options/authorization.go).
var modeFlags = []string{"authorization-mode", "authorization-webhook-config-file", "authorization-webhook-version",
	"authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl"}

// readAuthorization reads the file of --authorization-config: its authorizers
// stand under authorization-mode, their webhooks are remotes.
func (r *nodeReader) readAuthorization(c *trust.Component) {
	at, data, ok := r.readConfiguration(c, "authorization-config")
	if at == "" {
		return
	}
	for _, flag := range modeFlags {
		if _, both := c.Flag(flag); both {
			conflict(c, c.Setting(flag), "take --"+flag+" out", "--%s is set, and --authorization-config too: kube-apiserver refuses both", flag)
			return
		}
	}
	var f authorizationConfiguration
	if !ok || !r.decodeConfig(c, at, data, "AuthorizationConfiguration", configGroup, configVersions, &f) {
		return
	}
	if len(f.Authorizers) == 0 {
		conflict(c, r.place(at).In("authorizers"), "add the authorizers Node and RBAC", "authorizers is empty, which kube-apiserver refuses")
		return
	}
	var modes []string
	for i, a := range f.Authorizers {
		field := fmt.Sprintf("authorizers[%d]", i)
		if a.Type != "Webhook" && slices.Contains(modes, a.Type) {
			conflict(c, r.place(at).In(field+".type"), "take it out", "%s.type is %s a second time, which kube-apiserver refuses", field, a.Type)
		}
		if len(modes) == 0 || a.Type == "AlwaysAllow" {
			r.set(c, "authorization-mode", "", at, field+".type")
		}
		modes = append(modes, a.Type)
		if a.Webhook == nil || a.Webhook.ConnectionInfo.Type != "KubeConfigFile" {
			continue
		}
		file, where := a.Webhook.ConnectionInfo.KubeConfigFile, r.place(at).In(field+".webhook.connectionInfo.kubeConfigFile")
		if !strings.HasPrefix(file, "/") {
			conflict(c, where, "name it from / on", "%s is no absolute path, which kube-apiserver refuses", where.Field)
			continue
		}
		c.Remotes = append(c.Remotes, trust.Remote{Number: catalog.LinkWebhook, Name: "authorization webhook", Setting: where, Kubeconfig: r.named(c, file)})
	}
	c.Flags["authorization-mode"] = []string{strings.Join(modes, ",")}
}

// egressConfiguration is k8s.io/apiserver/pkg/apis/apiserver/v1beta1
// EgressSelectorConfiguration.
type egressConfiguration struct {
	typeMeta
	EgressSelections []struct {
		Name       string `json:"name"`
		Connection struct {
			ProxyProtocol string `json:"proxyProtocol"`
			Transport     struct {
				TCP *struct {
					URL       string     `json:"url"`
					TLSConfig *tlsConfig `json:"tlsConfig"`
				} `json:"tcp"`
				UDS any `json:"uds"`
			} `json:"transport"`
		} `json:"connection"`
	} `json:"egressSelections"`
}

type tlsConfig struct {
	CABundle      string `json:"caBundle"`
	ClientKey     string `json:"clientKey"`
	ClientCert    string `json:"clientCert"`
	TLSServerName string `json:"tlsServerName"`
}

// readEgress reads the file of --egress-selector-config-file: the proxies
// (konnectivity servers) through which kube-apiserver reaches the cluster
// (k8s.io/apiserver pkg/server/egressselector/config.go).
func (r *nodeReader) readEgress(c *trust.Component) {
	at, data, ok := r.readConfiguration(c, "egress-selector-config-file")
	var f egressConfiguration
	if !ok || !r.decodeConfig(c, at, data, "EgressSelectorConfiguration", oldGroup, configVersions, &f) {
		return
	}
	for i, s := range f.EgressSelections {
		t := s.Connection.Transport.TCP
		if t == nil {
			continue // a unix socket, or none: no TLS
		}
		in := func(field string) trust.Place {
			return r.place(at).In(fmt.Sprintf("egressSelections[%d].connection.transport.tcp.%s", i, field))
		}
		remote := trust.Remote{Number: catalog.LinkKonnectivity, Name: "konnectivity server", Setting: in("url"), URL: t.URL}
		tls := t.TLSConfig
		switch https := isHTTPS(t.URL); {
		case https && (tls == nil || tls.ClientCert == "" || tls.ClientKey == ""):
			conflict(c, in("tlsConfig"), "set clientCert and clientKey there", "%s has no client certificate with its key, without which kube-apiserver refuses an https URL", in("tlsConfig").Field)
			continue
		case !https && tls != nil:
			conflict(c, in("tlsConfig"), "make the URL https://, or take tlsConfig out", "%s is set for a URL that is not https, which kube-apiserver refuses", in("tlsConfig").Field)
			continue
		case https:
			remote.ServerName = tls.TLSServerName
			remote.CA, remote.CASetting = r.named(c, tls.CABundle), in("tlsConfig.caBundle")
			remote.Certificate = r.named(c, tls.ClientCert)
			remote.Key, remote.KeySetting = r.named(c, tls.ClientKey), in("tlsConfig.clientKey")
		}
		c.Remotes = append(c.Remotes, remote)
	}
}

// named is the place of a file that a setting names; zero when it names none.
func (r *nodeReader) named(c *trust.Component, file string) trust.Place {
	if file == "" {
		return trust.Place{}
	}
	return r.place(r.seenBy(c, file))
}

// readEncryption looks into the file of --encryption-provider-config for keys,
// for these make the file private. It is not judged otherwise.
func (r *nodeReader) readEncryption(c *trust.Component) {
	at, data, ok := r.readConfiguration(c, "encryption-provider-config")
	if !ok {
		return
	}
	type keys struct {
		Keys []any `json:"keys"`
	}
	var f struct {
		typeMeta
		Resources []struct {
			Providers []struct {
				AESGCM    *keys `json:"aesgcm"`
				AESCBC    *keys `json:"aescbc"`
				Secretbox *keys `json:"secretbox"`
			} `json:"providers"`
		} `json:"resources"`
	}
	unknown, err := decodeKind(data, "EncryptionConfiguration", configGroup, []string{"v1"}, &f)
	if err != nil {
		r.refuse(c, at, err)
		return
	}
	private := unknown != ""
	for _, resource := range f.Resources {
		for _, p := range resource.Providers {
			for _, k := range []*keys{p.AESGCM, p.AESCBC, p.Secretbox} {
				private = private || k != nil && len(k.Keys) > 0
			}
		}
	}
	if private {
		r.makePrivate(at, "the keys that encrypt Secrets in etcd")
	}
}

// readTokens makes the file of --token-auth-file private. That there is one at all
// is what is said of it first, so that its absence is not.
func (r *nodeReader) readTokens(c *trust.Component) {
	v, set := c.Flag("token-auth-file")
	if at := absolute(v); set && v != "" && r.exists(at) {
		if _, err := r.read(at, true); err == nil {
			r.makePrivate(at, "tokens of users")
		}
	}
}

// makePrivate notes that a file which was read holds something private.
func (r *nodeReader) makePrivate(at, holds string) {
	for i := range r.node.Files {
		if f := &r.node.Files[i]; f.Place == r.place(at) {
			f.Private, f.Holds = true, holds
		}
	}
	target := ""
	if to, err := resolve(r.links, at); err == nil && to.links > 0 {
		target = to.path()
	}
	r.holdsPrivate(at, target)
}
