package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// patience is how long a request may wait before it is told of: a kubelet asks anew
// after as long (k8s.io/client-go/util/certificate, certificateWaitTimeout).
const patience = 15 * time.Minute

// csrPending: nobody approves, or nobody signs. Requests of one signer in one state
// wait for one cause.
func csrPending(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	type of struct{ signer, state string }
	groups := map[of][]*trust.WaitingRequest{}
	var order []of
	for i := range o.Requests {
		r := &o.Requests[i]
		if r.State != "failed" && c.At.Sub(r.Since) <= patience {
			continue
		}
		id := of{r.Signer, r.State}
		if groups[id] == nil {
			order = append(order, id)
		}
		groups[id] = append(groups[id], r)
	}
	var out []Finding
	for _, id := range order {
		requests := groups[id]
		slices.SortStableFunc(requests, func(a, b *trust.WaitingRequest) int { return a.Since.Compare(b.Since) })
		f := c.waiting(o, requests).at(requests[0].Place)
		for _, r := range requests[1:] {
			f.Paths = append(f.Paths, r.Place.Path)
		}
		out = append(out, f)
	}
	return out
}

// waiting says of requests, the oldest first, what they wait for.
func (c *Case) waiting(o *trust.Objects, requests []*trust.WaitingRequest) Finding {
	oldest := requests[0]
	name := strings.TrimPrefix(oldest.Place.Path, "certificatesigningrequest/")
	who := fmt.Sprintf("request %s of %s for %s", name, oldest.User, oldest.Signer)
	if n := len(requests) - 1; n > 0 {
		who += fmt.Sprintf(" (and %d more)", n)
	}
	f := Finding{}
	switch oldest.State {
	case "failed":
		f.Cause = fmt.Sprintf("%s failed: %s", who, bounded(oldest.Message))
		f.Fix = know(sh("kubectl", "delete", "csr", name), "once the cause is mended: whoever needs the certificate asks again")
	case "approved":
		f.Cause = fmt.Sprintf("%s was approved %s ago, and nobody signs it", who, ago(c.At.Sub(oldest.Since)))
		f.Fix = "see why nobody signs for " + oldest.Signer + ": is its controller running"
		if strings.HasPrefix(oldest.Signer, "kubernetes.io/") {
			f.Fix = "see whether kube-controller-manager runs and has --cluster-signing-cert-file and --cluster-signing-key-file, or sign it: kubepki csr sign " + name
		}
	default:
		f.Cause = fmt.Sprintf("%s waits for approval since %s", who, ago(c.At.Sub(oldest.Since)))
		f.Fix = know(sh("kubepki", "csr", "review", name), "then kubepki csr approve %s, or deny", name)
	}
	for _, r := range requests {
		if text := notOfNode(o, r); text != "" {
			f.Cause += "; " + text
			break
		}
	}
	if oldest.Signer == "kubernetes.io/kubelet-serving" {
		f.Links = []int{10, 11}
	}
	if oldest.Signer == "kubernetes.io/kube-apiserver-client-kubelet" {
		f.Links = []int{8}
	}
	return f
}

func ago(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return days(d)
}

// notOfNode says which names a kubelet asks for that its Node does not have: nobody
// should approve that.
func notOfNode(o *trust.Objects, r *trust.WaitingRequest) string {
	name, is := strings.CutPrefix(r.User, "system:node:")
	if !is || r.Signer != "kubernetes.io/kubelet-serving" || o.Nodes == nil {
		return ""
	}
	request := strings.TrimPrefix(r.Place.Path, "certificatesigningrequest/")
	n := o.Node(name)
	if n == nil {
		return fmt.Sprintf("there is no node %s, for which %s asks", name, request)
	}
	others := slices.DeleteFunc(slices.Clone(r.Names), func(asked string) bool {
		return slices.ContainsFunc(n.All(), func(has string) bool { return sameName(asked, has) })
	})
	if len(others) == 0 {
		return ""
	}
	return fmt.Sprintf("%s asks for %s, which node %s does not have", request, strings.Join(others[:min(len(others), 5)], ", "), name)
}

// sameName compares names without regard to case, and addresses by their value.
func sameName(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap()
	}
	return strings.EqualFold(a, b)
}
