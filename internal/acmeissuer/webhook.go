package acmeissuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// webhook writes records by an extension API server that somebody runs for a DNS
// service: ChallengePayload of webhook.acme.cert-manager.io/v1alpha1, as cert-manager posts it.
type webhook struct {
	client    *Client
	config    *cmacme.ACMEIssuerDNS01ProviderWebhook
	namespace string
}

// payload is what is posted and what comes back.
type payload struct {
	metav1.TypeMeta `json:",inline"`
	Request         *payloadRequest  `json:"request,omitempty"`
	Response        *payloadResponse `json:"response,omitempty"`
}

type payloadRequest struct {
	UID                     types.UID       `json:"uid"`
	Action                  string          `json:"action"`
	Type                    string          `json:"type"`
	DNSName                 string          `json:"dnsName"`
	Key                     string          `json:"key"`
	ResourceNamespace       string          `json:"resourceNamespace"`
	ResolvedFQDN            string          `json:"resolvedFQDN,omitempty"`
	ResolvedZone            string          `json:"resolvedZone,omitempty"`
	AllowAmbientCredentials bool            `json:"allowAmbientCredentials"`
	Config                  json.RawMessage `json:"config,omitempty"`
}

type payloadResponse struct {
	UID     types.UID      `json:"uid"`
	Success bool           `json:"success"`
	Result  *metav1.Status `json:"status,omitempty"`
}

func (w *webhook) insert(ctx context.Context, c *cmacme.Challenge, r record) error {
	return w.post(ctx, c, r, "Present")
}

func (w *webhook) remove(ctx context.Context, c *cmacme.Challenge, r record) error {
	return w.post(ctx, c, r, "CleanUp")
}

func (w *webhook) post(ctx context.Context, c *cmacme.Challenge, r record, action string) error {
	// Both become parts of a path.
	if len(validation.IsDNS1123Subdomain(w.config.GroupName)) > 0 || len(validation.IsDNS1123Label(w.config.SolverName)) > 0 || !strings.Contains(w.config.GroupName, ".") {
		return errors.New("dns01.webhook: groupName and solverName are not names of an API group and a resource")
	}
	request := payload{TypeMeta: metav1.TypeMeta{APIVersion: "webhook.acme.cert-manager.io/v1alpha1", Kind: "ChallengePayload"}, Request: &payloadRequest{
		UID: c.UID, Action: action, Type: "dns-01", DNSName: c.Spec.DNSName, Key: r.value, ResourceNamespace: w.namespace,
		ResolvedFQDN: r.name, ResolvedZone: r.zone, AllowAmbientCredentials: kindOf(c.Spec.IssuerRef) == "ClusterIssuer",
	}}
	if w.config.Config != nil {
		request.Request.Config = w.config.Config.Raw
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := w.client.webhooks.Post().AbsPath("/apis", w.config.GroupName, "v1alpha1", w.config.SolverName).Body(body).Do(ctx).Raw()
	if err != nil {
		return fmt.Errorf("dns01.webhook %s of %s: %s", w.config.SolverName, w.config.GroupName, err.Error())
	}
	var got payload
	if len(answer) > maxAnswer || json.Unmarshal(answer, &got) != nil || got.Response == nil {
		return fmt.Errorf("dns01.webhook %s of %s: the answer is no ChallengePayload with a response", w.config.SolverName, w.config.GroupName)
	}
	if got.Response.Success {
		return nil
	}
	why := "it gives no reason"
	if got.Response.Result != nil && got.Response.Result.Message != "" {
		why = got.Response.Result.Message
	}
	return fmt.Errorf("dns01.webhook %s of %s: %s", w.config.SolverName, w.config.GroupName, why)
}
