package layout

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"

	"github.com/kubepki/kubepki/internal/trust"
)

// kubeconfigFile has the fields of k8s.io/client-go/tools/clientcmd/api/v1
// Config that matter to trust.
type kubeconfigFile struct {
	Kind           string         `json:"kind"`
	APIVersion     string         `json:"apiVersion"`
	CurrentContext string         `json:"current-context"`
	Clusters       []namedCluster `json:"clusters"`
	Contexts       []namedContext `json:"contexts"`
	Users          []namedUser    `json:"users"`
}

type namedCluster struct {
	Name    string  `json:"name"`
	Cluster cluster `json:"cluster"`
}

type cluster struct {
	Server        string `json:"server"`
	TLSServerName string `json:"tls-server-name,omitempty"`
	Insecure      bool   `json:"insecure-skip-tls-verify,omitempty"`
	CAFile        string `json:"certificate-authority,omitempty"`
	CAData        string `json:"certificate-authority-data,omitempty"`
	ProxyURL      string `json:"proxy-url,omitempty"`
}

type namedContext struct {
	Name    string      `json:"name"`
	Context userContext `json:"context"`
}

type userContext struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace,omitempty"`
	User      string `json:"user"`
}

type namedUser struct {
	Name string `json:"name"`
	User user   `json:"user"`
}

type user struct {
	CertificateFile string `json:"client-certificate,omitempty"`
	CertificateData string `json:"client-certificate-data,omitempty"`
	KeyFile         string `json:"client-key,omitempty"`
	KeyData         string `json:"client-key-data,omitempty"`
	Token           string `json:"token,omitempty"`
	TokenFile       string `json:"tokenFile,omitempty"`
	Username        string `json:"username,omitempty"`
	Password        string `json:"password,omitempty"`
	AuthProvider    any    `json:"auth-provider,omitempty"`
	Exec            any    `json:"exec,omitempty"`
}

// ParseKubeconfig reads the current context of a kubeconfig (YAML or JSON) and
// the PEM data embedded in its cluster and user, each a material at the field
// clusters[NAME].cluster.certificate-authority-data,
// users[NAME].user.client-certificate-data or users[NAME].user.client-key-data
// of the place. Relative paths resolve against the folder of the place, as
// clientcmd does. What clientcmd refuses is Malformed, with the field and the
// reason. Tokens, passwords and plugins are noted as HasToken and not kept.
func ParseKubeconfig(place trust.Place, data []byte) (trust.Kubeconfig, []*trust.Material, Keyring) {
	k := trust.Kubeconfig{Place: place, State: trust.Present}
	materials, keys, err := readKubeconfig(&k, data)
	if err != nil {
		k.State, k.Reason = trust.Malformed, err.Error()
		var f *fieldError
		if errors.As(err, &f) {
			k.Field = f.field
		}
		return k, nil, nil
	}
	return k, materials, keys
}

func readKubeconfig(k *trust.Kubeconfig, data []byte) ([]*trust.Material, Keyring, error) {
	if len(data) > MaxFile {
		return nil, nil, fmt.Errorf("larger than 1 MiB: not a kubeconfig")
	}
	var f kubeconfigFile
	if err := decodeYAML(data, &f); err != nil {
		return nil, nil, err
	}
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	names, c, u, err := f.chosen()
	k.Context, k.Cluster, k.User = f.CurrentContext, names.Cluster, names.User
	if err != nil {
		return nil, nil, err
	}
	k.Server, k.ServerName, k.Insecure = c.Server, c.TLSServerName, c.Insecure
	k.ServerField = clusterField(k.Cluster, "server")
	k.HasToken = u.Token != "" || u.TokenFile != "" || u.Username != "" || u.Password != "" || u.AuthProvider != nil || u.Exec != nil
	for _, other := range f.Users {
		k.Secret = k.Secret || other.User.KeyData != "" || other.User.Token != "" || other.User.Password != ""
	}
	switch {
	case u.Exec != nil:
		k.Plugin = "exec"
	case u.AuthProvider != nil:
		k.Plugin = "auth-provider"
	}
	e := embedded{keys: Keyring{}}
	k.CA = e.place(k.Place, clusterField(k.Cluster, "certificate-authority-data"), trust.RoleBundle, c.CAData, c.CAFile)
	k.Certificate = e.place(k.Place, userField(k.User, "client-certificate-data"), trust.RoleCertificate, u.CertificateData, u.CertificateFile)
	k.Key = e.place(k.Place, userField(k.User, "client-key-data"), trust.RoleKey, u.KeyData, u.KeyFile)
	return e.materials, e.keys, nil
}

func clusterField(name, field string) string { return "clusters[" + name + "].cluster." + field }

func userField(name, field string) string { return "users[" + name + "].user." + field }

// embedded collects what the fields of a kubeconfig hold.
type embedded struct {
	materials []*trust.Material
	keys      Keyring
}

// place returns where a setting's content stands, and keeps embedded content.
func (e *embedded) place(in trust.Place, field string, role trust.Role, data, file string) trust.Place {
	switch {
	case data != "":
		at := in.In(field)
		raw, _ := base64.StdEncoding.DecodeString(data) // checked before
		m, key := ParseMaterial(at, role, raw)
		e.materials = append(e.materials, m)
		if key != nil {
			e.keys[at] = key
		}
		return at
	case file != "":
		if !path.IsAbs(file) {
			file = path.Join(path.Dir(in.Path), file)
		}
		return trust.Place{Node: in.Node, Path: path.Clean(file)}
	}
	return trust.Place{}
}

// check refuses what makes clientcmd refuse the whole file.
func (f *kubeconfigFile) check() error {
	if f.Kind != "" && f.Kind != "Config" {
		return &fieldError{"kind", "is not Config"}
	}
	if f.APIVersion != "" && f.APIVersion != "v1" {
		return &fieldError{"apiVersion", "is not v1"}
	}
	seen := map[string]bool{}
	for _, c := range f.Clusters {
		if err := unique(seen, "clusters["+c.Name+"]"); err != nil {
			return err
		}
		if err := checkBase64(clusterField(c.Name, "certificate-authority-data"), c.Cluster.CAData); err != nil {
			return err
		}
	}
	for _, c := range f.Contexts {
		if err := unique(seen, "contexts["+c.Name+"]"); err != nil {
			return err
		}
	}
	for _, u := range f.Users {
		if err := unique(seen, "users["+u.Name+"]"); err != nil {
			return err
		}
		if err := checkBase64(userField(u.Name, "client-certificate-data"), u.User.CertificateData); err != nil {
			return err
		}
		if err := checkBase64(userField(u.Name, "client-key-data"), u.User.KeyData); err != nil {
			return err
		}
	}
	return nil
}

func unique(seen map[string]bool, field string) error {
	if seen[field] {
		return &fieldError{field, "is there twice"}
	}
	seen[field] = true
	return nil
}

func checkBase64(field, data string) error {
	if _, err := base64.StdEncoding.DecodeString(data); err != nil {
		return &fieldError{field, "is not base64"}
	}
	return nil
}

// chosen resolves the current context, and refuses what makes clientcmd refuse
// its cluster or its user. The names are given as far as they are known.
func (f *kubeconfigFile) chosen() (names userContext, c cluster, u user, err error) {
	if f.CurrentContext == "" {
		return names, c, u, &fieldError{"current-context", "is not set"}
	}
	context, ok := find(f.Contexts, func(c namedContext) bool { return c.Name == f.CurrentContext })
	if !ok {
		return names, c, u, &fieldError{"current-context", fmt.Sprintf("there is no context %q", f.CurrentContext)}
	}
	names = context.Context
	theirs, ok := find(f.Clusters, func(c namedCluster) bool { return c.Name == names.Cluster })
	if !ok {
		return names, c, u, &fieldError{"contexts[" + f.CurrentContext + "].context.cluster", dangling("cluster", names.Cluster)}
	}
	theirUser, ok := find(f.Users, func(u namedUser) bool { return u.Name == names.User })
	if !ok {
		return names, c, u, &fieldError{"contexts[" + f.CurrentContext + "].context.user", dangling("user", names.User)}
	}
	c, u = theirs.Cluster, theirUser.User
	if err := checkCluster(names.Cluster, c); err != nil {
		return names, c, u, err
	}
	return names, c, u, checkUser(names.User, u)
}

func dangling(kind, name string) string {
	if name == "" {
		return "is not set"
	}
	return fmt.Sprintf("there is no %s %q", kind, name)
}

func find[T any](list []T, is func(T) bool) (T, bool) {
	for _, e := range list {
		if is(e) {
			return e, true
		}
	}
	var none T
	return none, false
}

// checkCluster follows validateClusterInfo in client-go tools/clientcmd/validation.go.
func checkCluster(name string, c cluster) error {
	if c.Server == "" {
		return &fieldError{clusterField(name, "server"), "is not set"}
	}
	return notBoth(clusterField(name, "certificate-authority"), c.CAFile, c.CAData)
}

// checkUser follows validateAuthInfo in the same file.
func checkUser(name string, u user) error {
	if err := notBoth(userField(name, "client-certificate"), u.CertificateFile, u.CertificateData); err != nil {
		return err
	}
	if err := notBoth(userField(name, "client-key"), u.KeyFile, u.KeyData); err != nil {
		return err
	}
	hasCertificate := u.CertificateFile != "" || u.CertificateData != ""
	hasKey := u.KeyFile != "" || u.KeyData != ""
	if hasCertificate && !hasKey {
		return &fieldError{userField(name, "client-key"), "is not set, nor client-key-data, while there is a client certificate"}
	}
	if u.Token != "" && (u.Username != "" || u.Password != "") {
		return &fieldError{userField(name, "token"), "is set, and username or password too"}
	}
	return nil
}

func notBoth(field, file, data string) error {
	if file != "" && data != "" {
		return &fieldError{field, "is set, and " + path.Ext(field)[1:] + "-data too"}
	}
	return nil
}
