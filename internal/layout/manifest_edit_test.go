package layout

import (
	"errors"
	"strings"
	"testing"
)

const editable = `# our own words
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    # - --client-ca-file=/etc/kubernetes/pki/ca.crt was before
    - --client-ca-file=/etc/kubernetes/pki/ca.crt   # kubeadm's
    - --requestheader-client-ca-file=/etc/kubernetes/pki/ca.crt
    volumeMounts:
    - {mountPath: /etc/kubernetes/pki, name: k8s-certs, readOnly: true}
    - {mountPath: /etc/ssl/certs, name: ca-certs, readOnly: true}
  volumes:
  - {name: k8s-certs, hostPath: {path: /etc/kubernetes/pki, type: DirectoryOrCreate}}
  - {name: ca-certs, hostPath: {path: /etc/ssl/certs}}
`

func TestTheVersionOfAManifest(t *testing.T) {
	for image, want := range map[string]string{
		"registry.example.test/kube-apiserver:v1.37.2":                  "v1.37.2",
		"registry.example.test:5000/kube-apiserver:v1.35.4@sha256:00aa": "v1.35.4",
		"registry.example.test:5000/kube-apiserver":                     "",
		"kube-apiserver@sha256:00aa":                                    "",
		"kube-apiserver:latest":                                         "",
		"kube-apiserver:v":                                              "",
		"":                                                              "",
	} {
		manifest := strings.Replace(editable, "    command:\n", "    image: \""+image+"\"\n    command:\n", 1)
		if got := ManifestVersion([]byte(manifest)); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestSetFileChangesOnePathAndNothingElse(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(editable) }
	for name, c := range map[string]struct{ manifest, refused string }{
		"as kubeadm writes it, with comments":  {editable, ""},
		"quoted":                               {replace(`- --client-ca-file=/etc/kubernetes/pki/ca.crt `, `- "--client-ca-file=/etc/kubernetes/pki/ca.crt" `), ""},
		"in args":                              {replace("    # - --client", "    args:\n    # - --client"), ""},
		"mounted by a folder above":            {replace("mountPath: /etc/kubernetes/pki", "mountPath: /etc/kubernetes", "path: /etc/kubernetes/pki, type", "path: /etc/kubernetes, type"), ""},
		"as two words":                         {replace("- --client-ca-file=/etc/kubernetes/pki/ca.crt   #", "- --client-ca-file\n    - /etc/kubernetes/pki/ca.crt #"), "does not stand in the manifest once"},
		"given twice":                          {replace("    - --requestheader", "    - --client-ca-file=/etc/kubernetes/pki/ca.crt\n    - --requestheader"), "does not name"},
		"another file":                         {replace("- --client-ca-file=/etc/kubernetes/pki/ca.crt   #", "- --client-ca-file=/etc/kubernetes/pki/x.crt #"), "does not name"},
		"a longer name":                        {replace("- --client-ca-file=/etc/kubernetes/pki/ca.crt   #", "- --client-ca-file=/etc/kubernetes/pki/ca.crt.old #"), "does not name"},
		"the file is mounted alone":            {replace("mountPath: /etc/kubernetes/pki", "mountPath: /etc/kubernetes/pki/ca.crt"), "mounts alone"},
		"the folder is mounted from elsewhere": {replace("path: /etc/kubernetes/pki, type", "path: /srv/pki, type"), "from another place"},
		"the folder is a part of a volume":     {replace("name: k8s-certs, readOnly", "name: k8s-certs, subPath: pki, readOnly"), "from another place"},
		"nothing is mounted":                   {replace("mountPath: /etc/kubernetes/pki", "mountPath: /other"), "does not mount"},
		"no pod":                               {"kind: Service\n", "is not Pod"},
	} {
		got, err := SetFile([]byte(c.manifest), "client-ca-file", "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/client-ca.crt")
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, want %q", name, err, c.refused)
			}
			var edit *EditError
			if errors.As(err, &edit) && edit.Hint() == "" {
				t.Errorf("%s: no hint", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// The comment has the old path still; the flag's own line has the new one.
		if back := strings.Replace(string(got), "/client-ca.crt", "/ca.crt", 1); back != c.manifest || strings.Contains(string(got), "/client-ca.crt was before") || strings.Contains(string(got), `/client-ca.crt" was before`) {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestAFileIsMountedAlone(t *testing.T) {
	alone := strings.Replace(editable, "mountPath: /etc/kubernetes/pki", "mountPath: /etc/kubernetes/pki/ca.crt", 1)
	for name, c := range map[string]struct {
		manifest, file string
		want           bool
	}{
		"its folder is mounted":              {editable, "/etc/kubernetes/pki/ca.crt", false},
		"it is":                              {alone, "/etc/kubernetes/pki/ca.crt", true},
		"it is, by a name that is not clean": {alone, "/etc/kubernetes//pki/ca.crt", true},
		"another is":                         {alone, "/etc/kubernetes/pki/client-ca.crt", false},
		"within a folder that is mounted": {strings.Replace(alone, "volumeMounts:\n", "volumeMounts:\n    - {mountPath: /etc/kubernetes, name: all}\n", 1),
			"/etc/kubernetes/pki/ca.crt", true},
		"no pod": {"kind: Service\n", "/etc/kubernetes/pki/ca.crt", false},
	} {
		if got := MountsAlone([]byte(c.manifest), c.file); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
