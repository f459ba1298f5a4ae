//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/lab"
)

// runCertManagerAsAdmin starts the controllers of the real cert-manager, which build.sh
// makes of lab/certmanager, and returns what stops them.
func (c *certCluster) runCertManagerAsAdmin(t *testing.T, more ...string) (stop func()) {
	t.Helper()
	p, err := c.node.Run(&lab.Manifest{
		Name: "cert-manager", Probe: &url.URL{Scheme: "http", Host: "127.0.0.1:9403", Path: "/livez"},
		Command: append([]string{"cert-manager", "controller", "--kubeconfig=" + c.kubeconfig}, more...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("cert-manager:\n%s", p.Log())
		}
	})
	ready(t, p)
	return func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestCertWithCertManager: the commands beside the controllers of the real cert-manager.
func TestCertWithCertManager(t *testing.T) {
	c := startCertCluster(t)
	c.kubectl(t, "apply", "--server-side", "-f", crdFolder(t))
	c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	testCertServed(t, c, func() (stop func()) { return c.runCertManagerAsAdmin(t) })

	// Nobody approves: what waits, and what was refused, is said of its objects too.
	defer c.runCertManagerAsAdmin(t, "--controllers=*,-certificaterequests-approver")()
	t.Run("a request that nobody approves is named, and goes on when somebody does", c.testPeerUnapproved)
	t.Run("a request that was denied is named, with the time of the next", c.testPeerDenied)
	t.Run("an issuer of another group that is silent is named", c.testPeerExternal)
	t.Run("of two Certificates with one Secret the second is told of the first", c.testPeerDuplicate)
	t.Run("a key that may not be replaced and does not fit is named", c.testPeerKeyKept)
}

// requested waits for a request of a Certificate that is yet to be decided.
func (c *certCluster) requested(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is there, and new", func(context.Context) error {
		out, err := kubectl(t, c.controlPlane, "get", "certificaterequest", name, "-o", "jsonpath={.status.conditions[?(@.type=='Denied')].status}")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out.stderr)
		}
		if out.stdout != "" {
			return fmt.Errorf("it is the one that was denied")
		}
		return nil
	})
}

// decided writes a condition to a request as cmctl approve and deny do.
func (c *certCluster) decided(t *testing.T, request, condition string) {
	t.Helper()
	c.requested(t, request)
	now := time.Now().UTC().Format(time.RFC3339)
	c.kubectl(t, "patch", "certificaterequest", request, "--subresource=status", "--type=merge", "-p",
		fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":"True","reason":"lab","message":"so it was decided","lastTransitionTime":%q}]}}`, condition, now))
}

func (c *certCluster) testPeerUnapproved(t *testing.T) {
	c.says(t, 0, []string{"create", "slow", "--issuer=ca", "--dns=slow.example.com"}, "slow created")
	c.requested(t, "slow-1")
	c.says(t, 3, []string{"why", "slow"}, "waiting under-way", "certificaterequest/default/slow-1")
	c.namedCausedIn(t, "slow", 5*time.Minute, why.CauseUnapproved)
	c.says(t, 0, []string{"renew", "slow"}, "slow is being issued already")
	c.says(t, 0, []string{"status"}, "slow")
	c.decided(t, "slow-1", "Approved")
	c.becomesReady(t, "slow")
	c.says(t, 0, []string{"why", "slow"}, "ready: default/slow waits for nothing")
}

func (c *certCluster) testPeerDenied(t *testing.T) {
	c.says(t, 0, []string{"create", "denied", "--issuer=ca", "--dns=denied.example.com"}, "denied created")
	c.decided(t, "denied-1", "Denied")
	within(t, readyWait, "the refusal is said, with the time of the next try", func(context.Context) error {
		out, _ := try(t, "kubepki", "cert", "why", "denied", "--kubeconfig="+c.kubeconfig)
		if !strings.Contains(out.stdout, "broken denied") || !strings.Contains(out.stdout, "until:") {
			return fmt.Errorf("it says\n%s", out.stdout)
		}
		return nil
	})
}

func (c *certCluster) testPeerExternal(t *testing.T) {
	yaml := strings.Replace(leaf("external", ofECDSA), "{name: ca}", "{name: other, kind: Other, group: example.org}", 1)
	c.apply(t, yaml)
	c.decided(t, "external-1", "Approved")
	c.namedCausedIn(t, "external", 5*time.Minute, why.CauseIssuerGroup) // its CRDs are not there
}

func (c *certCluster) testPeerDuplicate(t *testing.T) {
	c.apply(t, strings.Replace(leaf("second", ofECDSA), "secretName: second-tls", "secretName: slow-tls", 1))
	c.says(t, 3, []string{"why", "second"}, "broken duplicate-secret", "slow")
	c.says(t, 0, []string{"why", "slow"}, "ready: default/slow")
	c.kubectl(t, "delete", "certificate", "second")
}

func (c *certCluster) testPeerKeyKept(t *testing.T) {
	c.apply(t, leaf("kept", "  privateKey: {algorithm: ECDSA, rotationPolicy: Never}\n"))
	c.decided(t, "kept-1", "Approved")
	c.becomesReady(t, "kept")
	c.apply(t, leaf("kept", "  privateKey: {algorithm: RSA, rotationPolicy: Never}\n"))
	within(t, readyWait, "the key is named", func(context.Context) error {
		out, _ := try(t, "kubepki", "cert", "why", "kept", "--kubeconfig="+c.kubeconfig)
		if !strings.Contains(out.stdout, why.CauseKeyKept) {
			return fmt.Errorf("it says\n%s", out.stdout)
		}
		return nil
	})
}
