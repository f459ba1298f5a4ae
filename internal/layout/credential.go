package layout

import (
	"encoding/base64"
	"fmt"
)

// Part is a certificate, a key or a bundle of a kubeconfig: what is embedded, or
// the path as it is written. The zero value: there is none.
type Part struct {
	// Field is where it stands in the kubeconfig, such as
	// clusters[NAME].cluster.certificate-authority-data.
	Field string
	Path  string // "" where it is embedded
	Data  []byte // PEM
}

// Given tells whether there is one.
func (p Part) Given() bool { return p.Field != "" }

// Credential is what a context of a kubeconfig says of a TLS client.
type Credential struct {
	Cluster, User        string // the names of their entries
	Server, ServerName   string // ServerName is tls-server-name
	Insecure             bool   // insecure-skip-tls-verify
	Plugin               string // "exec" or "auth-provider"; "": neither
	CA, Certificate, Key Part
}

// ReadCredential reads a context of a kubeconfig (YAML or JSON, up to [MaxFile]
// bytes), "" for the current one. What clientcmd refuses is an error that names
// the field and shows nothing of the file.
func ReadCredential(data []byte, context string) (*Credential, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("larger than 1 MiB: not a kubeconfig")
	}
	var f kubeconfigFile
	if err := decodeYAML(data, &f); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	if context != "" {
		if _, ok := find(f.Contexts, func(c namedContext) bool { return c.Name == context }); !ok {
			return nil, &fieldError{"contexts", fmt.Sprintf("there is no context %q", context)}
		}
		f.CurrentContext = context
	}
	names, c, u, err := f.chosen()
	if err != nil {
		return nil, err
	}
	r := &Credential{Cluster: names.Cluster, User: names.User, Server: c.Server, ServerName: c.TLSServerName, Insecure: c.Insecure}
	switch {
	case u.Exec != nil:
		r.Plugin = "exec"
	case u.AuthProvider != nil:
		r.Plugin = "auth-provider"
	}
	r.CA = part(clusterField(r.Cluster, "certificate-authority"), c.CAFile, c.CAData)
	r.Certificate = part(userField(r.User, "client-certificate"), u.CertificateFile, u.CertificateData)
	r.Key = part(userField(r.User, "client-key"), u.KeyFile, u.KeyData)
	return r, nil
}

func part(field, path, data string) Part {
	switch {
	case data != "":
		raw, _ := base64.StdEncoding.DecodeString(data) // checked before
		return Part{Field: field + "-data", Data: raw}
	case path != "":
		return Part{Field: field, Path: path}
	}
	return Part{}
}
