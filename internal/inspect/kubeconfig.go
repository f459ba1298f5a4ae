package inspect

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

// Context is one context of a kubeconfig with its cluster and user.
type Context struct {
	Name      string `json:"name"`
	Current   bool   `json:"current,omitempty"`
	Cluster   string `json:"cluster,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	User      string `json:"user,omitempty"`
	Server    string `json:"server,omitempty"`
	// ServerName is verified instead of the server's host.
	ServerName string `json:"serverName,omitempty"`
	ProxyURL   string `json:"proxyURL,omitempty"` // without its password
	// TrustedBy tells where the anchors are: "embedded", a path as written,
	// "system roots", or "nobody" with insecure-skip-tls-verify.
	TrustedBy string `json:"trustedBy,omitempty"`
	// Shows lists the kinds of credentials of the user, and their paths, never
	// their values.
	Shows []string `json:"shows,omitempty"`
	As    string   `json:"as,omitempty"` // impersonated user
}

// kubeconfig has the fields of k8s.io/client-go/tools/clientcmd/api/v1 Config
// that are shown.
type kubeconfig struct {
	CurrentContext string         `json:"current-context"`
	Clusters       []namedCluster `json:"clusters"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster   string `json:"cluster"`
			Namespace string `json:"namespace"`
			User      string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Users []struct {
		Name string         `json:"name"`
		User kubeconfigUser `json:"user"`
	} `json:"users"`
}

type namedCluster struct {
	Name    string            `json:"name"`
	Cluster kubeconfigCluster `json:"cluster"`
}

type kubeconfigCluster struct {
	Server        string `json:"server"`
	TLSServerName string `json:"tls-server-name"`
	Insecure      bool   `json:"insecure-skip-tls-verify"`
	CAFile        string `json:"certificate-authority"`
	CAData        string `json:"certificate-authority-data"`
	ProxyURL      string `json:"proxy-url"`
}

type kubeconfigUser struct {
	CertificateFile string `json:"client-certificate"`
	CertificateData string `json:"client-certificate-data"`
	KeyFile         string `json:"client-key"`
	KeyData         string `json:"client-key-data"`
	Token           string `json:"token"`
	TokenFile       string `json:"tokenFile"`
	As              string `json:"as"`
	Username        string `json:"username"`
	Password        string `json:"password"`
	AuthProvider    *struct {
		Name string `json:"name"`
	} `json:"auth-provider"`
	Exec *struct {
		Command string `json:"command"`
	} `json:"exec"`
}

func isKubeconfig(o map[string]any) bool {
	_, clusters := o["clusters"]
	_, users := o["users"]
	_, contexts := o["contexts"]
	kind, hasKind := o["kind"]
	return kind == "Config" && (clusters || users || contexts) || !hasKind && clusters && users && contexts
}

// kubeconfig describes every context, then everything embedded, also of
// clusters and users that no context names.
func (d *describer) kubeconfig(prefix string, o map[string]any) error {
	var k kubeconfig
	if err := retype(o, &k); err != nil {
		return d.add(Part{Kind: KindOther, Field: prefix, Problem: "is a kubeconfig of another form: " + err.Error()})
	}
	for _, c := range k.Contexts {
		p := Part{Kind: KindContext, Field: join(prefix, "contexts["+c.Name+"]"), Context: &Context{
			Name: c.Name, Current: c.Name == k.CurrentContext, Cluster: c.Context.Cluster, Namespace: c.Context.Namespace, User: c.Context.User,
		}}
		p.Problem = k.fill(p.Context)
		if err := d.add(p); err != nil {
			return err
		}
	}
	for _, c := range k.Clusters {
		if err := d.embedded(join(prefix, "clusters["+c.Name+"].cluster.certificate-authority-data"), c.Cluster.CAData); err != nil {
			return err
		}
	}
	for _, u := range k.Users {
		at := join(prefix, "users["+u.Name+"].user.")
		if err := d.embedded(at+"client-certificate-data", u.User.CertificateData); err != nil {
			return err
		}
		if err := d.embedded(at+"client-key-data", u.User.KeyData); err != nil {
			return err
		}
		if looksLikeToken(u.User.Token) {
			if err := d.token(at+"token", u.User.Token); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill completes a context from its cluster and user; it returns what does not
// fit together.
func (k *kubeconfig) fill(c *Context) string {
	problem := ""
	i := slices.IndexFunc(k.Clusters, func(e namedCluster) bool { return e.Name == c.Cluster })
	if i < 0 {
		problem = "names a cluster that is not in the file"
	} else {
		k.Clusters[i].Cluster.describe(c)
	}
	for _, u := range k.Users {
		if u.Name == c.User {
			c.Shows, c.As = u.User.shows(), u.User.As
			return problem
		}
	}
	if problem != "" {
		return "names a cluster and a user that are not in the file"
	}
	return "names a user that is not in the file"
}

func (k *kubeconfigCluster) describe(c *Context) {
	c.Server, c.ServerName, c.ProxyURL = redacted(k.Server), k.TLSServerName, redacted(k.ProxyURL)
	switch {
	case k.Insecure:
		c.TrustedBy = "nobody: insecure-skip-tls-verify"
	case k.CAData != "":
		c.TrustedBy = "embedded"
	case k.CAFile != "":
		c.TrustedBy = k.CAFile
	default:
		c.TrustedBy = "system roots"
	}
}

// redacted takes user, password and query out of a URL; what is no URL is not
// shown.
func redacted(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil {
		return "(not a URL)"
	}
	if u.User != nil {
		u.User = url.User("REDACTED")
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}

func (u *kubeconfigUser) shows() []string {
	var all []string
	add := func(is bool, what string) {
		if is {
			all = append(all, what)
		}
	}
	add(u.CertificateData != "", "client certificate (embedded)")
	add(u.CertificateFile != "", "client certificate "+u.CertificateFile)
	add(u.KeyData != "", "client key (embedded)")
	add(u.KeyFile != "", "client key "+u.KeyFile)
	add(u.Token != "", "token (embedded)")
	add(u.TokenFile != "", "token "+u.TokenFile)
	add(u.Username != "" || u.Password != "", "user name and password")
	if u.AuthProvider != nil {
		all = append(all, strings.TrimSpace("auth provider "+u.AuthProvider.Name))
	}
	if u.Exec != nil {
		all = append(all, strings.TrimSpace("exec plugin "+path.Base(u.Exec.Command)))
	}
	return all
}

// embedded describes the base64 of a PEM text.
func (d *describer) embedded(field, data string) error {
	if data == "" {
		return nil
	}
	inner, ok := decodeBase64(data)
	switch {
	case !ok:
		return d.add(Part{Kind: KindOther, Field: field, Problem: "is not base64"})
	case !hasBoundary(inner):
		return d.add(Part{Kind: KindOther, Field: field, Problem: "holds no PEM"})
	}
	return d.pem(field, inner)
}

func join(prefix, field string) string {
	switch {
	case prefix == "":
		return field
	case field == "":
		return prefix
	}
	return prefix + "." + field
}
