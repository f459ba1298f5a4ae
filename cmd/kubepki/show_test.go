package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const publishedDir = "../../internal/layout/testdata/published-cluster"

// kubepki runs a command in this process.
func kubepki(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), args, streams{in: stdin, out: &out, err: &talk})
	return out.String(), talk.String(), code
}

// TestShowPublishedToken shows what is known to be true of a Secret that was
// published with a real cluster's credentials.
func TestShowPublishedToken(t *testing.T) {
	file := filepath.Join(publishedDir, "kube-proxy-secret.yaml")
	out, talk, code := kubepki(t, nil, "show", file, "--at", "2020-09-01T00:00:00Z")
	if code != exitDone || talk != "" {
		t.Fatalf("exit code %d: %s", code, talk)
	}
	for _, want := range []string{
		`(?m)^Secret kube-system/kube-proxy-token-rd92l$`,
		`(?m)^  type +kubernetes.io/service-account-token$`,
		`(?m)^authority data\[ca.crt\]$`,
		`(?m)^  subject +CN=kubernetes$`,
		`(?m)^  valid +2020-08-20T02:30:05Z to 2030-08-18T02:30:05Z \(3638d left\)$`,
		`(?m)^token data\[token\]$`,
		`(?m)^  algorithm +RS256$`,
		`(?m)^  key id +empty: `,
		`(?m)^  who +system:serviceaccount:kube-system:kube-proxy \(uid a77d7ba1-fc3b-47a3-ac4d-2ead913d5082\)$`,
		`(?m)^  expires +never: a legacy token of a Secret$`,
		`(?m)^  signature +not verified$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no match for %s in:\n%s", want, out)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	token := regexp.MustCompile(`token: (\S+)`).FindSubmatch(data)[1]
	for _, format := range []string{"text", "json", "yaml"} {
		if out, _, _ := kubepki(t, nil, "show", file, "-o", format); strings.Contains(out, "eyJ") || strings.Contains(out, string(token[:40])) {
			t.Errorf("-o %s prints a part of the token", format)
		}
	}
}

// TestShowPublishedCluster shows the folders of the same cluster, of which
// most files were never published.
func TestShowPublishedCluster(t *testing.T) {
	out, talk, code := kubepki(t, nil, "show", publishedDir, "--at", "2020-09-01T00:00:00Z", "-o", "json")
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, talk)
	}
	var v struct {
		Credentials []struct{ Node, Name, Problem, Authority, Subject, NotAfter string }
		Authorities []struct {
			Name, NotAfter string
			Places         []struct{ Node, Key string }
		}
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Authorities) != 1 || v.Authorities[0].Name != "ca" || v.Authorities[0].NotAfter != "2030-08-18T02:30:05Z" || v.Authorities[0].Places[0].Key != "" {
		t.Errorf("authorities = %+v", v.Authorities)
	}
	seen := map[string]string{}
	for _, c := range v.Credentials {
		if c.Problem == "" {
			seen[c.Node+"/"+c.Name] = c.Subject
			if c.Authority != "ca" || !strings.HasPrefix(c.NotAfter, "2021-08-20") {
				t.Errorf("%+v is not signed by ca until 2021-08-20", c)
			}
		}
	}
	want := map[string]string{
		"master/kubelet.conf":            "CN=system:node:vm-4-3-centos,O=system:nodes",
		"master/controller-manager.conf": "CN=system:kube-controller-manager",
		"master/scheduler.conf":          "CN=system:kube-scheduler",
	}
	for name, subject := range want {
		if seen[name] != subject {
			t.Errorf("%s is %q, want %q", name, seen[name], subject)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("seen: %v", seen)
	}
}

// TestShowPEMOfKubeconfig takes the certificates out of a kubeconfig, and no key.
func TestShowPEMOfKubeconfig(t *testing.T) {
	out, talk, code := kubepki(t, nil, "show", filepath.Join(publishedDir, "master/etc/kubernetes/scheduler.conf"), "--pem")
	if code != exitDone || strings.Count(out, "BEGIN CERTIFICATE") != 2 || strings.Contains(out, "KEY") {
		t.Fatalf("exit code %d, %s\n%s", code, talk, out)
	}
	again, _, code := kubepki(t, strings.NewReader(out), "show", "-", "--pem")
	if code != exitDone || again != out {
		t.Error("what --pem prints, --pem does not print again")
	}
}
