package main

import (
	"slices"
	"testing"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/trust"
)

// Three API servers, and nobody reads the same credential three times.
func TestWhoNeedNamesEachCredentialOnce(t *testing.T) {
	place := func(path string) trust.Place { return trust.Place{Node: "cp1", Path: path} }
	kubelet, server := &trust.Credential{Certificate: place("/kubelet.conf")}, &trust.Credential{Certificate: place("/apiserver.crt")}
	link := func(number int, caller, callee string) *trust.Link {
		return &trust.Link{Number: number, Caller: caller, Callee: callee}
	}
	got := whoNeed([]bundle.Lost{
		{Link: link(8, "cp1/kubelet", "cp1/kube-apiserver"), Credential: kubelet},
		{Link: link(8, "cp1/kubelet", "cp2/kube-apiserver"), Credential: kubelet},
		{Link: link(8, "cp1/kubelet", "cp1/kube-apiserver"), Credential: server, Server: true},
		{Link: link(8, "w1/kubelet", "cp1/kube-apiserver"), Credential: server, Server: true},
		{Link: link(8, "cp1/kubelet", "cp3/kube-apiserver"), Credential: kubelet},
		{Link: link(9, "cp1/admin", "cp1/kube-apiserver"), Credential: server, Server: true},
	})
	want := []string{
		"link 8, cp1/kubelet → cp1/kube-apiserver and 2 more, needs it: cp1:/kubelet.conf is verified by it (client)",
		"link 8, cp1/kubelet and 1 more → cp1/kube-apiserver, needs it: cp1:/apiserver.crt is verified by it (server)",
		"link 9, cp1/admin → cp1/kube-apiserver, needs it: cp1:/apiserver.crt is verified by it (server)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
