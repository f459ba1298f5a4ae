package why

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func owned(references []metav1.OwnerReference, uid string) bool {
	for _, r := range references {
		if string(r.UID) == uid {
			return true
		}
	}
	return false
}

// idle is the cause where a controller was to do something: there is none, or it does
// not do it.
func (t *teller) idle(object, text string) *Cause {
	c := &Cause{ID: CauseIdle, Where: object}
	var alive, stale []string
	if t.Leases.Object != nil {
		for _, l := range *t.Leases.Object {
			name := l.Namespace + "/" + l.Name
			if l.alive(t.At) {
				alive = append(alive, name+" ("+l.Holder+")")
			} else {
				stale = append(stale, name+", renewed last "+ago(t.At.Sub(l.Renewed)))
			}
		}
	}
	switch {
	case len(alive) > 0:
		c.Text = text + "; a controller runs, with the lease " + strings.Join(alive, ", ")
		c.Fix = command("kubectl", "get", "pods", "-A", "-l", "app.kubernetes.io/component=controller")
		c.Advice = "look at its log, and whether it serves Certificates at all (kubepki controller --enable workloads) and this issuer (--issuers)"
	case t.Leases.unseen() || t.Leases.Look == "":
		c.Text = text + "; whether a controller runs could not be seen"
		c.Advice = "give yourself the right to " + orText(t.Leases.Detail, "list leases in namespace kube-system") + ", and see that cert-manager or kubepki controller --enable workloads runs"
	default:
		c.ID = CauseNoController
		c.Text = text + "; no controller holds a lease"
		if len(stale) > 0 {
			c.Text = fmt.Sprintf("%s; no controller holds its lease any more: %s", text, strings.Join(stale, "; "))
		}
		c.Fix = command("kubepki", "controller", "--enable", "workloads")
		c.Advice = "or start cert-manager again: kubectl get deployments -A -l app.kubernetes.io/name=cert-manager"
	}
	return c
}

func orText(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
