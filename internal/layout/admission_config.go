package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// admissionConfiguration is k8s.io/apiserver/pkg/apis/apiserver/v1
// AdmissionConfiguration.
type admissionConfiguration struct {
	typeMeta
	Plugins []struct {
		Name          string          `json:"name"`
		Path          string          `json:"path"`
		Configuration json.RawMessage `json:"configuration"`
	} `json:"plugins"`
	// ImagePolicy stands here where the whole file is the old configuration of
	// one plugin.
	ImagePolicy *imagePolicy `json:"imagePolicy"`
}

// imagePolicy is of k/k plugin/pkg/admission/imagepolicy/config.go.
type imagePolicy struct {
	KubeConfigFile string `json:"kubeConfigFile"`
}

// readAdmission reads the file of --admission-control-config-file and the files
// of its plugins that call servers (k8s.io/apiserver pkg/admission/config.go).
func (r *nodeReader) readAdmission(c *trust.Component) {
	at, data, ok := r.readConfiguration(c, "admission-control-config-file")
	if !ok {
		return
	}
	var f admissionConfiguration
	if err := decodeYAML(data, &f); err == nil && f.Kind == "" && f.ImagePolicy != nil {
		r.imagePolicy(c, r.place(at).In("imagePolicy.kubeConfigFile"), f.ImagePolicy)
		return
	}
	group := configGroup
	if f.APIVersion == oldGroup+"/v1alpha1" {
		group = oldGroup
	}
	if !r.decodeConfig(c, at, data, "AdmissionConfiguration", group, []string{"v1", "v1alpha1"}, &f) {
		return
	}
	for i, p := range f.Plugins {
		file, text, prefix := at, []byte(p.Configuration), fmt.Sprintf("plugins[%d].configuration.", i)
		if len(text) == 0 || string(text) == "null" {
			if p.Path == "" {
				continue
			}
			file, prefix = p.Path, ""
			if !path.IsAbs(file) {
				file = path.Join(path.Dir(at), file)
			} else {
				file = r.seenBy(c, file)
			}
			content, err := r.read(file, false)
			if err != nil {
				r.addConfiguration(file, err)
				continue
			}
			text = content.Data
		}
		r.readPlugin(c, p.Name, r.place(file), prefix, text)
	}
}

func (r *nodeReader) readPlugin(c *trust.Component, name string, at trust.Place, prefix string, text []byte) {
	var f struct {
		ImagePolicy    *imagePolicy `json:"imagePolicy"`
		KubeConfigFile string       `json:"kubeConfigFile"`
	}
	if name != "ImagePolicyWebhook" && name != "MutatingAdmissionWebhook" && name != "ValidatingAdmissionWebhook" {
		return // of the others none calls anybody by settings of its own
	}
	if err := decodeYAML(text, &f); err != nil {
		r.refuse(c, at.Path, err)
		return
	}
	switch {
	case name == "ImagePolicyWebhook" && f.ImagePolicy != nil:
		r.imagePolicy(c, at.In(prefix+"imagePolicy.kubeConfigFile"), f.ImagePolicy)
	case name != "ImagePolicyWebhook" && f.KubeConfigFile != "":
		where := at.In(prefix + "kubeConfigFile")
		if !path.IsAbs(f.KubeConfigFile) {
			conflict(c, where, "name it from / on", "%s is no absolute path, which kube-apiserver refuses", where.Field)
			return
		}
		r.readWebhookUsers(c, f.KubeConfigFile)
	}
}

func (r *nodeReader) imagePolicy(c *trust.Component, where trust.Place, p *imagePolicy) {
	if p.KubeConfigFile == "" {
		return
	}
	c.Remotes = append(c.Remotes, trust.Remote{Number: catalog.LinkWebhook, Name: "image policy webhook", Setting: where, Kubeconfig: r.named(c, p.KubeConfigFile)})
}

// readWebhookUsers reads the kubeconfig with which admission webhooks are called:
// of it the users alone count, each named after the servers that it is shown to
// (k8s.io/apiserver pkg/util/webhook/authentication.go).
func (r *nodeReader) readWebhookUsers(c *trust.Component, file string) {
	at := r.seenBy(c, file)
	for _, have := range c.Remotes {
		if have.Setting.Path == at {
			return // both plugins name one file, as they mostly do
		}
	}
	content, err := r.read(at, false)
	if err != nil {
		r.addConfiguration(at, err)
		return
	}
	var f kubeconfigFile
	parseErr := decodeYAML(content.Data, &f)
	if parseErr == nil {
		parseErr = f.check()
	}
	if parseErr != nil {
		r.node.Kubeconfigs = append(r.node.Kubeconfigs, brokenWebhooks(r.place(at), parseErr))
		return
	}
	for _, u := range f.Users {
		e := embedded{keys: Keyring{}}
		remote := trust.Remote{Number: catalog.LinkWebhook, Name: "admission webhook " + u.Name, Setting: r.place(at).In("users[" + u.Name + "]")}
		remote.Certificate = e.place(r.place(at), userField(u.Name, "client-certificate-data"), trust.RoleCertificate, u.User.CertificateData, u.User.CertificateFile)
		remote.Key = e.place(r.place(at), userField(u.Name, "client-key-data"), trust.RoleKey, u.User.KeyData, u.User.KeyFile)
		r.node.Materials = append(r.node.Materials, e.materials...)
		for p, k := range e.keys {
			r.keys[p] = k
		}
		if u.User.KeyData != "" || u.User.Token != "" || u.User.Password != "" {
			r.makePrivate(at, "")
		}
		if !remote.Certificate.IsZero() {
			c.Remotes = append(c.Remotes, remote)
		}
	}
}

func brokenWebhooks(at trust.Place, err error) trust.Kubeconfig {
	k := trust.Kubeconfig{Place: at, State: trust.Malformed, Remote: true, Reason: err.Error()}
	var f *fieldError
	if errors.As(err, &f) {
		k.Field = f.field
	}
	return k
}
