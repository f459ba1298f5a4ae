package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/report"
)

// What the README of the published cluster says is true of its token.
func TestSATokenOfThePublishedCluster(t *testing.T) {
	dir := published(t)
	secret, err := os.ReadFile(filepath.Join(dir, "kube-proxy-secret.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^\s*token: (\S+)$`).FindSubmatch(secret)
	if match == nil {
		t.Fatal("the Secret holds no token")
	}
	text, err := base64.StdEncoding.DecodeString(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	var out, talk bytes.Buffer
	if code := run(t.Context(), []string{"sa", "inspect", "-o", "json"}, streams{bytes.NewReader(text), &out, &talk}); code != exitDone {
		t.Fatalf("exit %d: %s", code, talk.String())
	}
	var got report.TokenInspection
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Algorithm != "RS256" || got.KeyID != "" || !got.Legacy || got.User == nil || got.User.Username != "system:serviceaccount:kube-system:kube-proxy" ||
		got.ServiceAccount.UID != "a77d7ba1-fc3b-47a3-ac4d-2ead913d5082" || len(got.Findings) != 1 || got.Findings[0].ID != "sa-token-legacy" {
		t.Errorf("%s", out.String())
	}

	// The key that verifies it was not published.
	out.Reset()
	code := run(t.Context(), []string{"sa", "verify", "-", "--root", filepath.Join(dir, "master")}, streams{bytes.NewReader(text), &out, &talk})
	if code != exitFailed || !strings.Contains(talk.String(), "/etc/kubernetes/pki/sa.pub (--service-account-key-file of kube-apiserver): does not exist") || out.Len() > 0 {
		t.Errorf("exit %d: %s%s", code, out.String(), talk.String())
	}
}
