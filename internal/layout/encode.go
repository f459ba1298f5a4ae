package layout

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// KubeconfigSpec says what a kubeconfig with one cluster and one user holds.
// Each of the CA, the certificate and the key is given as PEM, which is
// embedded, or as the path of a file, not both; so is the token, as text.
type KubeconfigSpec struct {
	Cluster    string // name of the cluster entry
	Server     string // URL
	ServerName string // name to verify instead of the server's host; may be empty
	ProxyURL   string // URL of the proxy (http, https or socks5) to the server; may be empty
	CA         []byte // PEM
	CAFile     string
	User       string // name of the user entry
	Context    string // empty: User@Cluster
	Namespace  string // of the context; may be empty

	Certificate     []byte // PEM, with its chain
	CertificateFile string
	Key             []byte // PEM
	KeyFile         string
	Token           string // instead of a certificate
	TokenFile       string // path of the file that holds it, which clients read again
}

// EncodeKubeconfig writes the YAML that clientcmd.Write of k8s.io/client-go
// v0.37.2 writes, byte for byte, and so what kubeadm writes. The error names
// the field that is absent or contradicts another.
func EncodeKubeconfig(k KubeconfigSpec) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("kubeconfig of %q: %w", k.User, err)
	}
	context := k.Context
	if context == "" {
		context = k.User + "@" + k.Cluster
	}
	base64 := base64.StdEncoding.EncodeToString
	return yaml.Marshal(kubeconfigFile{
		Kind: "Config", APIVersion: "v1", CurrentContext: context,
		Clusters: []namedCluster{{Name: k.Cluster, Cluster: cluster{
			Server: k.Server, TLSServerName: k.ServerName, CAFile: k.CAFile, CAData: base64(k.CA), ProxyURL: k.ProxyURL,
		}}},
		Contexts: []namedContext{{Name: context, Context: userContext{
			Cluster: k.Cluster, User: k.User, Namespace: k.Namespace,
		}}},
		Users: []namedUser{{Name: k.User, User: user{
			CertificateFile: k.CertificateFile, CertificateData: base64(k.Certificate),
			KeyFile: k.KeyFile, KeyData: base64(k.Key), Token: k.Token, TokenFile: k.TokenFile,
		}}},
	})
}

func (k *KubeconfigSpec) check() error {
	hasCertificate := len(k.Certificate) > 0 || k.CertificateFile != ""
	hasKey := len(k.Key) > 0 || k.KeyFile != ""
	switch {
	case k.Cluster == "":
		return errors.New("the name of the cluster is not set")
	case k.User == "":
		return errors.New("the name of the user is not set")
	case k.Server == "":
		return errors.New("the server is not set")
	case len(k.CA) > 0 && k.CAFile != "":
		return errors.New("the CA is given as data and as a file")
	case len(k.Certificate) > 0 && k.CertificateFile != "":
		return errors.New("the client certificate is given as data and as a file")
	case len(k.Key) > 0 && k.KeyFile != "":
		return errors.New("the client key is given as data and as a file")
	case hasCertificate != hasKey:
		return errors.New("a client certificate and its key belong together, one is not set")
	case k.Token != "" && k.TokenFile != "":
		return errors.New("the token is given as data and as a file")
	case !hasCertificate && k.Token == "" && k.TokenFile == "":
		return errors.New("neither a client certificate nor a token is set")
	}
	for _, text := range []string{k.Cluster, k.User, k.Context, k.Namespace, k.Server, k.ServerName, k.ProxyURL, k.CAFile, k.CertificateFile, k.KeyFile, k.Token, k.TokenFile} {
		if strings.ToValidUTF8(text, "") != text {
			return errors.New("a name, path or token is not UTF-8")
		}
	}
	return nil
}

// entryLists are the lists of a kubeconfig whose entries have names.
var entryLists = []string{"clusters", "contexts", "users"}

// MergeKubeconfigs joins kubeconfigs (YAML or JSON) into one with all their
// clusters, contexts and users, sorted by name as clientcmd.Write sorts them.
// Fields that this package does not know are kept. What is the same in two
// files is written once; the same name with different content is an error that
// names it, and so is a relative path, which would mean another file
// elsewhere. The current context, preferences and extensions are the first
// file's that sets them.
func MergeKubeconfigs(files [][]byte) ([]byte, error) {
	if len(files) == 0 {
		return nil, errors.New("no kubeconfig to merge")
	}
	merged := map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": ""}
	for i, data := range files {
		if err := mergeOne(merged, data); err != nil {
			return nil, fmt.Errorf("kubeconfig %d of %d: %w", i+1, len(files), err)
		}
	}
	for _, list := range entryLists {
		entries, _ := merged[list].([]any)
		slices.SortStableFunc(entries, func(a, b any) int { return strings.Compare(entryName(a), entryName(b)) })
		merged[list] = entries
	}
	return yaml.Marshal(merged)
}

func mergeOne(merged map[string]any, data []byte) error {
	if len(data) > MaxFile {
		return errors.New("larger than 1 MiB: not a kubeconfig")
	}
	var known kubeconfigFile
	if err := decodeYAML(data, &known); err != nil {
		return err
	}
	if err := known.check(); err != nil {
		return err
	}
	if err := known.checkAbsolute(); err != nil {
		return err
	}
	var all map[string]any
	if err := decodeYAML(data, &all); err != nil {
		return err
	}
	for key, value := range all {
		if have, ok := merged[key]; (!ok || have == "") && !slices.Contains(entryLists, key) {
			merged[key] = value
		}
	}
	for _, list := range entryLists {
		from, _ := all[list].([]any)
		into, _ := merged[list].([]any)
		for _, entry := range from {
			var err error
			if into, err = mergeEntry(into, entry, list); err != nil {
				return err
			}
		}
		merged[list] = into
	}
	return nil
}

func mergeEntry(into []any, entry any, list string) ([]any, error) {
	name := entryName(entry)
	i := slices.IndexFunc(into, func(e any) bool { return entryName(e) == name })
	switch {
	case i < 0:
		return append(into, entry), nil
	case reflect.DeepEqual(into[i], entry):
		return into, nil
	}
	return nil, &fieldError{list + "[" + name + "]", "another kubeconfig has one of this name with different content: rename one"}
}

func entryName(entry any) string {
	fields, _ := entry.(map[string]any)
	name, _ := fields["name"].(string)
	return name
}

// checkAbsolute refuses relative paths.
func (f *kubeconfigFile) checkAbsolute() error {
	absolute := func(field, file string) error {
		if file != "" && !path.IsAbs(file) {
			return &fieldError{field, "is a relative path: make it absolute, or embed the file"}
		}
		return nil
	}
	for _, c := range f.Clusters {
		if err := absolute(clusterField(c.Name, "certificate-authority"), c.Cluster.CAFile); err != nil {
			return err
		}
	}
	for _, u := range f.Users {
		if err := errors.Join(
			absolute(userField(u.Name, "client-certificate"), u.User.CertificateFile),
			absolute(userField(u.Name, "client-key"), u.User.KeyFile),
			absolute(userField(u.Name, "tokenFile"), u.User.TokenFile),
		); err != nil {
			return err
		}
	}
	return nil
}
