package podcert_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
)

// A kubelet that asks for a pod which it does not run gets nothing.
func Example() {
	request := podcert.Request{
		Namespace: "shop", SignerName: podcert.DefaultSignerName,
		Pod:            podcert.Reference{Name: "web-0", UID: "5f4e"},
		ServiceAccount: podcert.Reference{Name: "web", UID: "1a2b"},
		Node:           podcert.Reference{Name: "n1", UID: "9c8d"},
	}
	var err error
	if request.PublicKey, request.ProofOfPossession, err = newKey(request.Pod.UID); err != nil {
		fmt.Println(err)
		return
	}
	facts := podcert.Facts{
		Pod:               &podcert.Pod{UID: "5f4e", ServiceAccount: "web", Node: "n2", Signers: []string{podcert.DefaultSignerName}},
		ServiceAccountUID: "1a2b", NodeUID: "9c8d",
	}
	review := podcert.Decide(request, facts, podcert.DefaultPolicy("example.org"))
	fmt.Println(review.Verdict, review.ID)
	facts.Pod.Node = "n1"
	review = podcert.Decide(request, facts, podcert.DefaultPolicy("example.org"))
	fmt.Println(review.Verdict)
	// Output:
	// Deny PodNotOnNode
	// Issue
}

// newKey makes a key as a kubelet does, and proves to have it.
func newKey(uid string) (public, proof []byte, err error) {
	key, err := issue.GenerateKey(issue.Ed25519)
	if err != nil {
		return nil, nil, err
	}
	if public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, nil, err
	}
	proof, err = key.Sign(rand.Reader, []byte(uid), crypto.Hash(0))
	return public, proof, err
}
