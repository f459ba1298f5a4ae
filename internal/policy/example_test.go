package policy_test

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
)

func ExampleParse() {
	p, err := policy.Parse([]byte(`
apiVersion: kubepki.dev/v1alpha1
kind: SigningPolicy
maxDuration:
  kubernetes.io/kubelet-serving: 720h
rules:
- name: people
  signerName: kubernetes.io/kube-apiserver-client
  approve: request.username == subject.commonName
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.MaxDuration[csr.KubeletServingSigner])
	ok, err := p.Rules[0].Approve(csr.Request{Username: "jane"}, &csr.Asked{CommonName: "jane"})
	fmt.Println(p.Rules[0].Name, ok, err)
	// Output:
	// 720h0m0s
	// people true <nil>
}
