package lab_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/explain/saidtext"
)

// authenticating are the sources of upstream that say why somebody is not let in,
// or why TLS does not come about: a module, and files of it.
var authenticating = []struct{ module, files string }{
	{"k8s.io/apiserver", "pkg/authentication/request/x509/*.go"},
	{"k8s.io/apiserver", "pkg/authentication/request/headerrequest/*.go"},
	{"k8s.io/apiserver", "pkg/authentication/request/bearertoken/*.go"},
	{"k8s.io/apiserver", "pkg/authentication/request/websocket/*.go"},
	{"k8s.io/apiserver", "pkg/server/dynamiccertificates/*.go"},
	{"k8s.io/kubernetes", "pkg/serviceaccount/claims.go"},
	{"k8s.io/kubernetes", "pkg/serviceaccount/jwt.go"},
	{"k8s.io/kubernetes", "pkg/serviceaccount/legacy.go"},
	{"k8s.io/kubernetes", "pkg/kubelet/certificate/*.go"},
	{"k8s.io/kubernetes", "pkg/kubelet/certificate/bootstrap/*.go"},
	{"k8s.io/client-go", "transport/*.go"},
	{"k8s.io/client-go", "util/cert/*.go"},
	{"k8s.io/client-go", "util/keyutil/*.go"},
	{"k8s.io/client-go", "util/certificate/*.go"},
	{"k8s.io/client-go", "tools/clientcmd/validation.go"},
	{"go.etcd.io/etcd/client/pkg/v3", "transport/listener*.go"},
	{"go.etcd.io/etcd/client/pkg/v3", "tlsutil/*.go"},
	{"github.com/go-jose/go-jose/v4", "jwt/errors.go"},
}

// beside are texts of those sources that are about no credential, or that say
// nothing but what they wrap.
var beside = map[string]string{
	"word failed with : word":                           "it says what it wraps",
	"dynamiccertificates: configuration not ready":      "the first moments of a start",
	"dynamiccertificates: unexpected config type":       "a mistake in the program",
	"error adding watch for file word: word":            "of the kernel's watches, not of the file",
	"error creating fsnotify watcher: word":             "of the kernel's watches",
	"received fsnotify error: word":                     "of the kernel's watches",
	"SecretsWriter must be provided":                    "a mistake in the program",
	"ServiceAccountTokenGetter must be provided":        "a mistake in the program",
	"there is already a transport or dialer configured": "a mistake in the program",
	"couldn't create client: word":                      "it says what it wraps",
	"misconfigured holder for dialer or cert callback":  "a mistake in the program",
	"error reading word: word":                          "it says what it wraps: no such file, permission denied",
	"failed to close connection : word":                 "no error of a credential",
	"failed to write cert fixture to word: word":        "of tests",
	"failed to write key fixture to word: word":         "of tests",
	"error generating key: word":                        "it says what it wraps",
	"error loading key from word: word":                 "it says what it wraps",
	"error writing key to word: word":                   "it says what it wraps",
	"asked to stop":                                     "the end of the program",
	"cannot specify both GetUsages and Usages":          "a mistake in the program",
	"either GetUsages or Usages should be specified":    "a mistake in the program",
	"could not open \"word\": word":                     "it says what it wraps",
	"unable to remove \"word\": word":                   "it says what it wraps",
	"unable to rename \"word\" to \"word\": word":       "it says what it wraps",
	"namespace \"word\" for context \"word\" does not conform to the kubernetes DNS_LABEL rules": "of a namespace's name",
	"requesting uid, groups or user-extra for word without impersonating a user":                 "of impersonation",
}

// The catalogue knows what the components of the pinned versions say.
func TestEachTextOfTheComponentsIsKnown(t *testing.T) {
	dirs := map[string]string{}
	said := 0
	for _, s := range authenticating {
		if dirs[s.module] == "" {
			out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", s.module).Output()
			if err != nil {
				t.Fatal(err)
			}
			dirs[s.module] = strings.TrimSpace(string(out))
		}
		texts, err := saidtext.Texts(filepath.Join(dirs[s.module], s.files))
		if err != nil || len(texts) == 0 {
			t.Fatalf("%s %s: %d texts, %v", s.module, s.files, len(texts), err)
		}
		said += len(texts)
		for _, text := range texts {
			if _, known := beside[text]; !known && explain.Line(text, "") == nil {
				t.Errorf("%s %s: %q is not in internal/explain/messages", s.module, s.files, text)
			}
		}
	}
	t.Logf("%d texts", said)
}
