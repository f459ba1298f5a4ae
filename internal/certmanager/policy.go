package certmanager

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// Texts of conditions. Who is denied learns nothing of the policy.
const (
	reasonPolicy   = "policy.kubepki.dev"
	messageByRule  = "Approved by rule %q of the workload policy"
	messageByOwn   = "Approved: the issuer is of the same namespace, and no rule of the workload policy is for it"
	messageByNone  = "The request was denied by policy"
	reasonWaits    = "WaitingApproval"
	messageWaits   = "Waiting for an approval: the workload policy does not approve this request by itself"
	messageLimited = "The request is not within the limits of the workload policy"
)

// ByPolicy returns an approver that decides by the policy of the moment, which is not nil.
// It is to be set as the controller's Approver before Run.
func (c *Controller) ByPolicy(policy func() *workload.Policy) Approver {
	return &policyApprover{c, policy}
}

type policyApprover struct {
	c      *Controller
	policy func() *workload.Policy
}

// PolicyChanged has the requests that wait for an approval decided on anew.
func (c *Controller) PolicyChanged() {
	for key, r := range c.requests.each() {
		if !r.value.Approved && c.wantsRequest(r.value) {
			c.requestQueue.Add(key)
		}
	}
}

// Approve decides by the rules.
func (p *policyApprover) Approve(_ context.Context, r *cmapi.CertificateRequest, asked *workload.Asked) (Approval, error) {
	policy := p.policy()
	if !policy.Names(asked.Issuer) {
		return Approval{}, nil // others do
	}
	certificate, again := p.certificate(r, asked)
	ruling := policy.Decide(workload.PetitionOf(r, certificate), asked)
	p.told(r, asked, ruling)
	switch ruling.Outcome {
	case workload.Approves:
		message := messageByOwn
		if ruling.Rule != "" {
			message = fmt.Sprintf(messageByRule, ruling.Rule)
		}
		return Approval{Verdict: Approved, Reason: reasonPolicy, Message: message}, nil
	case workload.Denies:
		if again > 0 { // a rule may ask for the Certificate
			return Approval{Again: again}, nil
		}
		return Approval{Verdict: Denied, Reason: reasonPolicy, Message: messageByNone}, nil
	}
	return Approval{Reason: reasonWaits, Message: messageWaits, Again: again}, nil
}

func (p *policyApprover) told(r *cmapi.CertificateRequest, asked *workload.Asked, ruling workload.Ruling) {
	outcome := map[workload.Outcome]string{workload.Approves: "approve", workload.Denies: "deny"}[ruling.Outcome]
	level := slog.LevelInfo
	if outcome == "" {
		outcome, level = "wait", slog.LevelWarn
	}
	p.c.Metrics.ruled(outcome, ruling.ID)
	p.c.Log.Log(context.Background(), level, "workloads: a request was decided on", "outcome", outcome, "reason", ruling.ID, "rule", ruling.Rule, "message", ruling.Message,
		"namespace", r.Namespace, "request", r.Name, "issuerKind", asked.Issuer.Kind, "issuer", asked.Issuer.Name, "issuerGroup", asked.Issuer.Group)
}

// A request may be seen before its Certificate is. That is waited for, a while.
const (
	ownerPatience = time.Minute
	ownerAgain    = 2 * time.Second
)

// certificate is the name of the Certificate that a request is of, if that asks for the
// same: anybody can write an owner into a request. A time says when to look again.
func (p *policyApprover) certificate(r *cmapi.CertificateRequest, asked *workload.Asked) (string, time.Duration) {
	owner := metav1.GetControllerOfNoCopy(r)
	if owner == nil || owner.Kind != cmapi.CertificateKind {
		return "", 0
	}
	o, _ := p.c.certificates.get(types.NamespacedName{Namespace: r.Namespace, Name: owner.Name})
	if o == nil || o.UID != owner.UID {
		if now().Sub(r.CreationTimestamp.Time) < ownerPatience {
			return "", ownerAgain
		}
		return "", 0
	}
	return workload.CertificateOf(r, o, asked), 0
}

// Limits is a guard: it objects to what breaks a limit of a policy, whoever has approved
// it. Policy is that of the moment.
type Limits struct {
	Policy func() *workload.Policy
	Log    *slog.Logger
}

// Approve approves what is within the limits, and denies the rest.
func (l Limits) Approve(_ context.Context, r *cmapi.CertificateRequest, asked *workload.Asked) (Approval, error) {
	if err := l.Policy().Limit(r.Namespace, asked); err != nil {
		l.Log.Warn("workloads: an approved request is not signed", "namespace", r.Namespace, "request", r.Name, "message", err.Error())
		return Approval{Verdict: Denied, Reason: "PolicyLimit", Message: messageLimited}, nil
	}
	return Approval{Verdict: Approved}, nil
}
