package tokentest

import (
	"crypto"
	"fmt"
	"strconv"
	"time"

	"github.com/kubepki/kubepki/token"
)

// The cluster that the cases are about.
const (
	Issuer  = "https://kubernetes.default.svc.cluster.local"
	Issuer2 = "https://second.example.com"
)

// Case is a token, what it is shown to, and the verdict.
type Case struct {
	Name  string
	Token string
	// Issuers and Audiences are those of the verifier; nil: both issuers, and
	// the audiences of the API server. Asked are those of a TokenReview.
	Issuers, Audiences, Asked []string
	NoLegacy                  bool
	// Want is the first reason of the refusal; empty: accepted.
	Want token.ReasonID
	// Stricter tells that Kubernetes accepts what is refused here: a difference
	// that docs/sa-verify.md lists.
	Stricter bool
}

// Config returns what the case is verified with.
func (c *Case) Config(now func() time.Time) token.Config {
	set, err := token.NewKeySet(publicKeys()...)
	if err != nil {
		panic(err)
	}
	return token.Config{Keys: set, Issuers: c.AcceptedIssuers(), Audiences: c.Audiences, Legacy: !c.NoLegacy, Now: now}
}

// AcceptedIssuers are those of the verifier.
func (c *Case) AcceptedIssuers() []string {
	if c.Issuers == nil {
		return []string{Issuer, Issuer2}
	}
	return c.Issuers
}

func publicKeys() []token.Key {
	var all []token.Key
	for _, name := range Listed() {
		all = append(all, keyOf(name))
	}
	return all
}

func keyOf(name string) token.Key {
	k, err := token.NewKey(Key(name).Public())
	if err != nil {
		panic(err)
	}
	return k
}

// Header is a good header for a key of the cluster.
func Header(key string) Object {
	k := keyOf(key)
	return Object{{"alg", quoted(k.Algorithm())}, {"kid", quoted(k.ID)}}
}

// Payload is that of a good token of a pod.
func Payload(now time.Time) Object {
	return Object{
		{"aud", list(Issuer)}, {"exp", at(now.Add(time.Hour))}, {"iat", at(now)}, {"iss", quoted(Issuer)}, {"jti", quoted("4f3c7a52-6f0e-4f0f-9d7e-2b1c5a0d7e11")},
		{"kubernetes.io", Bound().Text()}, {"nbf", at(now)}, {"sub", quoted("system:serviceaccount:apps:robot")},
	}
}

// Bound is the claim kubernetes.io of a good token of a pod.
func Bound() Object {
	return Object{
		{"namespace", `"apps"`}, {"node", ref("worker-1", "a1")}, {"pod", ref("robot-7d9f", "b2")},
		{"serviceaccount", ref("robot", "c3")}, {"warnafter", "4000000000"},
	}
}

// LegacyPayload is that of a good token of a Secret.
func LegacyPayload() Object {
	const claim = "kubernetes.io/serviceaccount/"
	return Object{
		{"iss", quoted(token.LegacyIssuer)}, {claim + "namespace", `"apps"`}, {claim + "secret.name", `"robot-token"`},
		{claim + "service-account.name", `"robot"`}, {claim + "service-account.uid", `"c3"`}, {"sub", quoted("system:serviceaccount:apps:robot")},
	}
}

// Good signs a payload with the first key of the cluster.
func Good(payload Object) string { return Signed(RSA, Header(RSA), payload) }

// Signed signs with a key by its own algorithm, whatever the header says.
func Signed(key string, header, payload Object) string {
	return Forge(header.Text(), payload.Text(), algorithm(Key(key)), Key(key), nil)
}

func algorithm(k crypto.Signer) string {
	key, err := token.NewKey(k.Public())
	if err != nil {
		return "RS256" // a weak key
	}
	return key.Algorithm()
}

func quoted(s string) string { return strconv.Quote(s) }

func list(all ...string) string {
	text := "["
	for i, s := range all {
		if i > 0 {
			text += ","
		}
		text += quoted(s)
	}
	return text + "]"
}

func ref(name, uid string) string { return fmt.Sprintf(`{"name":%q,"uid":%q}`, name, uid) }

func at(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// Cases returns all cases for a time, which should be now: Kubernetes' code asks
// the clock.
func Cases(now time.Time) []Case {
	var all []Case
	for _, some := range []func(time.Time) []Case{
		goodCases, algorithmCases, keyCases, headerCases, issuerCases, subjectCases, audienceCases, timeCases, boundCases, legacyCases, formCases, jsonCases,
	} {
		all = append(all, some(now)...)
	}
	return all
}
