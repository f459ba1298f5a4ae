package podcert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Decide decides on a request that nobody has answered. The facts must have
// been read after the request was made: a pod that is missing then is gone for
// good. Service accounts and nodes are other than that: who makes one anew gives
// it a new UID while its pods still run, and a denial would be final for these.
// Left undecided, the request is removed by kube-controller-manager after a
// while, and the kubelet asks again with the UID of the new one.
func Decide(r Request, f Facts, p Policy) Review {
	if r.SignerName != p.SignerName {
		return undecided(OtherSigner, fmt.Sprintf("the request is for the signer %q", r.SignerName))
	}
	if p.Namespace != "" && r.Namespace != p.Namespace {
		return deny(OtherNamespace, "the signer is for the pods of another namespace")
	}
	for _, judge := range []func(Request, Facts, Policy) Review{judgeKey, judgeWishes, judgePod, judgeOwners} {
		if review := judge(r, f, p); review.Verdict != "" {
			return review
		}
	}
	return Review{Verdict: Issue, ID: Issued, Message: "the pod, its service account and its node are those of the request"}
}

func judgeKey(r Request, f Facts, p Policy) Review {
	public, err := r.publicKey()
	switch {
	case errors.Is(err, errNoKey):
		return undecided(KeyNotSeen, err.Error())
	case err != nil:
		return deny(InvalidKey, "the key cannot be read")
	case !slices.Contains(p.KeyTypes, keyType(public)):
		return deny(UnsupportedKeyType, "use a key of type "+strings.Join(p.KeyTypes, ", "))
	case !r.proved(public):
		return deny(InvalidKey, "the request was not made by the holder of the key")
	case f.AuthorityKey != nil && trust.SameKey(public, f.AuthorityKey):
		return deny(InvalidKey, "the key is not the pod's own")
	}
	return Review{}
}

func judgeWishes(r Request, _ Facts, p Policy) Review {
	if len(r.Annotations) > 0 {
		names := make([]string, 0, len(r.Annotations))
		for name := range r.Annotations {
			names = append(names, name)
		}
		slices.Sort(names)
		return deny(InvalidUserAnnotations, fmt.Sprintf("the signer knows no user annotation %q", names[0]))
	}
	if r.life() < MinLife {
		return deny(InvalidExpiration, fmt.Sprintf("maxExpirationSeconds is below %d", int(MinLife.Seconds())))
	}
	if _, err := r.identity(p); err != nil {
		return deny(InvalidIdentity, "the namespace and the service account make no SPIFFE ID")
	}
	return Review{}
}

// judgePod checks what NodeRestriction checks when a kubelet makes the request
// (k/k plugin/pkg/admission/noderestriction/admission.go,
// admitPodCertificateRequest), which is not on in every cluster, and does not
// hold others up who may make requests.
func judgePod(r Request, f Facts, p Policy) Review {
	pod := f.Pod
	switch {
	case r.Pod.UID == "" || pod == nil || pod.UID != r.Pod.UID:
		return deny(PodGone, "there is no such pod any more")
	case pod.Mirror:
		return deny(PodIsMirror, "static pods get no certificates")
	case pod.Node == "" || pod.Node != r.Node.Name:
		return deny(PodNotOnNode, "the pod is not on the node of the request")
	case pod.ServiceAccount != r.ServiceAccount.Name:
		return deny(OtherServiceAccount, "the pod has another service account than the request")
	case pod.Finished:
		return deny(PodFinished, "the pod has ended")
	case !p.AllowUnmounted && !slices.Contains(pod.Signers, r.SignerName):
		return deny(SignerNotMounted, "the pod mounts no podCertificate volume of the signer")
	}
	return Review{}
}

func judgeOwners(r Request, f Facts, _ Policy) Review {
	switch {
	case r.ServiceAccount.UID == "" || f.ServiceAccountUID != r.ServiceAccount.UID:
		return undecided(ServiceAccountGone, "the service account of the request is gone, or has been made anew")
	case r.Node.UID == "" || f.NodeUID != r.Node.UID:
		return undecided(NodeGone, "the node of the request is gone, or has been made anew")
	}
	return Review{}
}

// life is the longest that the request allows.
func (r Request) life() time.Duration {
	if r.MaxExpirationSeconds == nil {
		return DefaultMaxExpirationSeconds * time.Second
	}
	return time.Duration(*r.MaxExpirationSeconds) * time.Second
}

// identity is the SPIFFE ID of the pods of a service account.
func (r Request) identity(p Policy) (spiffeid.ID, error) {
	domain, err := spiffeid.TrustDomainFromString(p.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(domain, "ns", r.Namespace, "sa", r.ServiceAccount.Name)
}
