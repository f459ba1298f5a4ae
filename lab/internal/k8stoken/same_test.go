package k8stoken_test

import (
	"errors"
	"testing"
	"time"

	genericfeatures "k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/lab/internal/k8stoken"
	"github.com/kubepki/kubepki/token"
)

// withWebhooks turns on what 1.37 has as alpha: tokens that are bound to webhook
// configurations.
func withWebhooks(t testing.TB) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, genericfeatures.APIServerWebhookAuthenticationToken, true)
}

func publicKeys() []any {
	var all []any
	for _, name := range tokentest.Listed() {
		all = append(all, tokentest.Key(name).Public())
	}
	return all
}

func authenticator(t testing.TB, issuers []string) *k8stoken.Authenticator {
	t.Helper()
	a, err := k8stoken.New(publicKeys(), issuers, issuers)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Kubernetes' own code says of each case what package token says, names the same
// user, or accepts what the case declares to be a difference.
func TestKubernetesSaysTheSame(t *testing.T) {
	withWebhooks(t)
	stricter, refused, accepted := 0, 0, 0
	for _, c := range tokentest.Cases(time.Now()) {
		t.Run(c.Name, func(t *testing.T) {
			v, err := token.NewVerifier(c.Config(nil))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := v.VerifyFor(t.Context(), c.Token, c.Asked)
			if err != nil && !errors.As(err, new(*token.RefusedError)) {
				t.Fatal(err)
			}
			theirs, theirErr := authenticator(t, c.AcceptedIssuers()).Authenticate(t.Context(), c.Token, c.Asked)
			switch {
			case c.Want == "" && theirs == nil:
				t.Fatalf("Kubernetes refuses it: %v", theirErr)
			case c.Want == "":
				accepted++
				if d := k8stoken.Differ(theirs, ours); d != "" {
					t.Error(d)
				}
			case c.Stricter && theirs == nil:
				t.Fatalf("Kubernetes refuses it too (%v): it is no difference", theirErr)
			case c.Stricter:
				stricter++
			case theirs != nil:
				t.Fatalf("Kubernetes accepts it as %s: an undeclared difference", theirs.User.GetName())
			default:
				refused++
			}
		})
	}
	t.Logf("%d accepted by both, %d refused by both, %d refused here alone", accepted, refused, stricter)
}
