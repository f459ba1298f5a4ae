package objects

import (
	"fmt"
	"os"
	"path/filepath"
)

// AdmissionDir is the folder, on a control-plane node, of kube-apiserver's
// admission configuration and of the credential that it shows to webhooks.
const AdmissionDir = "/etc/kubernetes/admission"

// Flag is one flag of a component and why it is needed.
type Flag struct{ Flag, Reason string }

// APIServerFlags are the flags that kube-apiserver needs besides those that
// kubeadm gives it, to call the servers of [Apply].
func APIServerFlags() []Flag {
	return []Flag{
		{"--enable-aggregator-routing=true", "kube-apiserver dials the addresses of an extension's or a webhook's pods: " +
			"a service's own address leads nowhere on a node without kube-proxy, as the control-plane nodes of the lab are"},
		{"--admission-control-config-file=" + AdmissionDir + "/config.yaml", "kube-apiserver shows a client certificate to webhooks (link 14)"},
	}
}

const admissionConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: ` + AdmissionDir + `/webhooks.conf
`

// webhooksConf names each user by the server that the credential is for. Of
// clusters and contexts it has none: address and authority come from the
// webhook's configuration (clientConfig in k/apiserver
// pkg/util/webhook/authentication.go).
const webhooksConf = `apiVersion: v1
kind: Config
users:
- name: webhook.lab-webhook.svc
  user:
    client-certificate: ` + AdmissionDir + `/webhook-client.crt
    client-key: ` + AdmissionDir + `/webhook-client.key
`

// WriteAdmission writes kube-apiserver's admission configuration, and the
// credential that it shows to the webhook server, below the root folder of a
// control-plane node.
func WriteAdmission(root string, webhook Material) error {
	dir := filepath.Join(root, AdmissionDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"config.yaml":        []byte(admissionConfig),
		"webhooks.conf":      []byte(webhooksConf),
		"webhook-client.crt": webhook.ClientCertificate,
		"webhook-client.key": webhook.ClientKey,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return fmt.Errorf("write kube-apiserver's admission configuration: %w", err)
		}
	}
	return nil
}
