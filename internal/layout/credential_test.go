package layout_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/layout"
)

const twoContexts = `
current-context: gone
contexts:
- {name: prod, context: {cluster: prod, user: jane}}
- {name: dev, context: {cluster: dev, user: robot}}
- {name: plugin, context: {cluster: dev, user: plugin}}
- {name: broken, context: {cluster: prod, user: nobody}}
clusters:
- {name: prod, cluster: {server: "https://prod", certificate-authority: pki/ca.crt, tls-server-name: kubernetes}}
- {name: dev, cluster: {server: "https://dev", certificate-authority-data: ZGV2, insecure-skip-tls-verify: true}}
users:
- {name: jane, user: {client-certificate-data: amFuZQ==, client-key: /jane.key}}
- {name: robot, user: {token: c2VjcmV0}}
- {name: plugin, user: {exec: {command: login}}}
`

func TestReadCredentialOfAContext(t *testing.T) {
	for context, want := range map[string]*layout.Credential{
		"prod": {
			Cluster: "prod", User: "jane", Server: "https://prod", ServerName: "kubernetes",
			CA:          layout.Part{Field: "clusters[prod].cluster.certificate-authority", Path: "pki/ca.crt"},
			Certificate: layout.Part{Field: "users[jane].user.client-certificate-data", Data: []byte("jane")},
			Key:         layout.Part{Field: "users[jane].user.client-key", Path: "/jane.key"},
		},
		"dev": {
			Cluster: "dev", User: "robot", Server: "https://dev", Insecure: true,
			CA: layout.Part{Field: "clusters[dev].cluster.certificate-authority-data", Data: []byte("dev")},
		},
		"plugin": {
			Cluster: "dev", User: "plugin", Server: "https://dev", Insecure: true, Plugin: "exec",
			CA: layout.Part{Field: "clusters[dev].cluster.certificate-authority-data", Data: []byte("dev")},
		},
	} {
		got, err := layout.ReadCredential([]byte(twoContexts), context)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", context, err, diff)
		}
	}
	for context, want := range map[string]string{
		"":       `current-context: there is no context "gone"`,
		"other":  `contexts: there is no context "other"`,
		"broken": `contexts[broken].context.user: there is no user "nobody"`,
	} {
		if _, err := layout.ReadCredential([]byte(twoContexts), context); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", context, err, want)
		}
	}
}
