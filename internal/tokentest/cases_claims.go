package tokentest

import (
	"time"

	"github.com/kubepki/kubepki/token"
)

func issuerCases(now time.Time) []Case {
	p := Payload(now)
	iss := func(json string) string { return Good(p.With("iss", json)) }
	return []Case{
		{Name: "an issuer that is not listed", Token: iss(`"https://other.example"`), Want: token.IssuerUnknown},
		{Name: "an issuer with a slash more", Token: iss(quoted(Issuer + "/")), Want: token.IssuerUnknown},
		{Name: "an issuer in upper case", Token: iss(`"HTTPS://KUBERNETES.DEFAULT.SVC.CLUSTER.LOCAL"`), Want: token.IssuerUnknown},
		{Name: "an empty issuer", Token: iss(`""`), Want: token.IssuerUnknown},
		{Name: "no issuer", Token: Good(p.Without("iss")), Want: token.IssuerUnknown},
		{Name: "an issuer that is null", Token: iss(`null`), Want: token.IssuerUnknown},
		{Name: "an issuer that is a list", Token: iss(list(Issuer)), Want: token.Malformed},
		{Name: "two issuers, the good one last", Token: Good(p.Before("iss", `"https://other.example"`)), Want: token.Malformed},
		{Name: "two issuers, the good one first", Token: Good(p.And("iss", `"https://other.example"`)), Want: token.Malformed},
		{Name: "two issuers, the second under an escape", Token: Good(p.And(`\u0069ss`, `"https://other.example"`)), Want: token.Malformed},
		{Name: "a second issuer in other letters, last", Token: Good(p.And("ISS", `"https://other.example"`)), Want: token.Malformed},
		{Name: "a second issuer in other letters, first", Token: Good(p.Before("Iss", `"https://other.example"`)), Want: token.Malformed, Stricter: true},
		{Name: "a second issuer with a long s", Token: Good(p.And("iſs", `"https://other.example"`)), Want: token.Malformed},
		{Name: "an issuer in other letters alone", Token: Good(p.Without("iss").And("Iss", quoted(Issuer))), Want: token.IssuerUnknown},
		{Name: "a foreign issuer and a foreign key: the issuer is told", Token: Signed(Foreign, Header(Foreign), p.With("iss", `"https://other.example"`)), Want: token.IssuerUnknown},
		{Name: "a verifier without issuers", Token: Good(p), Issuers: []string{}, Want: token.IssuerUnknown},
	}
}

func subjectCases(now time.Time) []Case {
	p := Payload(now)
	sub := func(json string) string { return Good(p.With("sub", json)) }
	long := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a'
		}
		return string(b)
	}
	about := func(namespace, name string) string {
		b := Bound().With("namespace", quoted(namespace)).With("serviceaccount", ref(name, "c3"))
		return Good(p.With("kubernetes.io", b.Text()).With("sub", quoted("system:serviceaccount:"+namespace+":"+name)))
	}
	return []Case{
		{Name: "sub of another service account", Token: sub(`"system:serviceaccount:apps:admin"`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub of another namespace", Token: sub(`"system:serviceaccount:kube-system:robot"`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub of a user", Token: sub(`"admin"`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub with one part more", Token: sub(`"system:serviceaccount:apps:robot:x"`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub in other letters", Token: sub(`"system:serviceaccount:apps:Robot"`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "no sub", Token: Good(p.Without("sub")), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub that is null", Token: sub(`null`), Want: token.SubjectMismatch, Stricter: true},
		{Name: "sub that is a number", Token: sub(`7`), Want: token.Malformed},
		{Name: "sub twice", Token: Good(p.And("sub", `"system:serviceaccount:apps:admin"`)), Want: token.Malformed},
		{Name: "a service account with dots", Token: about("apps", "robot.v2")},
		{Name: "a namespace of 63 characters", Token: about(long(63), "robot")},
		{Name: "a namespace of 64 characters", Token: about(long(64), "robot"), Want: token.NameInvalid, Stricter: true},
		{Name: "a service account of 253 characters", Token: about("apps", long(253))},
		{Name: "a service account of 254 characters", Token: about("apps", long(254)), Want: token.NameInvalid, Stricter: true},
		{Name: "a namespace in upper case", Token: about("Apps", "robot"), Want: token.NameInvalid, Stricter: true},
		{Name: "a namespace with a dot", Token: about("apps.x", "robot"), Want: token.NameInvalid, Stricter: true},
		{Name: "a service account with a colon", Token: about("apps", "robot:x"), Want: token.NameInvalid, Stricter: true},
		{Name: "a service account that is a path", Token: about("apps", "../robot"), Want: token.NameInvalid, Stricter: true},
		{Name: "a service account with a line end", Token: about("apps", "robot\n"), Want: token.NameInvalid, Stricter: true},
		{Name: "a service account that ends with a hyphen", Token: about("apps", "robot-"), Want: token.NameInvalid, Stricter: true},
		{Name: "no namespace", Token: about("", "robot"), Want: token.ClaimMissing},
		{Name: "no name", Token: about("apps", ""), Want: token.ClaimMissing},
		{Name: "no uid", Token: Good(p.With("kubernetes.io", Bound().With("serviceaccount", `{"name":"robot"}`).Text())), Want: token.ClaimMissing, Stricter: true},
		{Name: "an empty uid", Token: Good(p.With("kubernetes.io", Bound().With("serviceaccount", ref("robot", "")).Text())), Want: token.ClaimMissing, Stricter: true},
		{Name: "a uid that is a number", Token: Good(p.With("kubernetes.io", Bound().With("serviceaccount", `{"name":"robot","uid":7}`).Text())), Want: token.Malformed},
	}
}

func audienceCases(now time.Time) []Case {
	p := Payload(now)
	aud := func(json string) string { return Good(p.With("aud", json)) }
	return []Case{
		{Name: "aud that is a text", Token: aud(quoted(Issuer))},
		{Name: "two audiences, one of them wanted", Token: aud(list("other", Issuer))},
		{Name: "an audience twice", Token: aud(list(Issuer, Issuer))},
		{Name: "an audience that is not wanted", Token: aud(list("other")), Want: token.AudienceMismatch},
		{Name: "an audience with a slash more", Token: aud(list(Issuer + "/")), Want: token.AudienceMismatch},
		{Name: "no audience", Token: Good(p.Without("aud")), Want: token.AudienceMismatch, Stricter: true},
		{Name: "an empty list of audiences", Token: aud(`[]`), Want: token.AudienceMismatch, Stricter: true},
		{Name: "aud that is null", Token: aud(`null`), Want: token.Malformed},
		{Name: "an empty audience", Token: aud(`""`), Want: token.AudienceMismatch},
		{Name: "a list of an empty audience", Token: aud(`[""]`), Want: token.AudienceMismatch},
		{Name: "aud that is a number", Token: aud(`7`), Want: token.Malformed},
		{Name: "aud that is an object", Token: aud(`{"0":"x"}`), Want: token.Malformed},
		{Name: "a list with a number among the audiences", Token: aud(`["` + Issuer + `",7]`), Want: token.Malformed},
		{Name: "a list with a null among the audiences", Token: aud(`["` + Issuer + `",null]`), Want: token.Malformed},
		{Name: "a list within the list of audiences", Token: aud(`[["` + Issuer + `"]]`), Want: token.Malformed},
		{Name: "aud twice", Token: Good(p.And("aud", list("other"))), Want: token.Malformed},
		{Name: "asked for its audience", Token: aud(list("vault")), Asked: []string{"vault"}},
		{Name: "asked for one of its audiences", Token: aud(list("vault", "other")), Asked: []string{"registry", "other"}},
		{Name: "asked for another audience", Token: aud(list("vault")), Asked: []string{"registry"}, Want: token.AudienceMismatch},
		{Name: "for the API server, asked for another audience", Token: Good(p), Asked: []string{"vault"}, Want: token.AudienceMismatch},
		{Name: "no audience, asked for one", Token: Good(p.Without("aud")), Asked: []string{"vault"}, Want: token.AudienceMismatch},
	}
}

func timeCases(now time.Time) []Case {
	p := Payload(now)
	in := func(seconds int) string { return at(now.Add(time.Duration(seconds) * time.Second)) }
	exp := func(json string) string { return Good(p.With("exp", json)) }
	old := p.With("iat", in(-3600)).With("nbf", in(-3600))
	return []Case{
		{Name: "expired within the leeway", Token: Good(old.With("exp", in(-50)))},
		{Name: "expired beyond the leeway", Token: Good(old.With("exp", in(-70))), Want: token.Expired},
		{Name: "expired a year ago", Token: Good(p.With("exp", in(-365*24*3600)).Without("nbf").Without("iat")), Want: token.Expired},
		{Name: "no exp", Token: Good(p.Without("exp")), Want: token.ExpiryMissing, Stricter: true},
		{Name: "exp that is null", Token: exp(`null`), Want: token.ExpiryMissing, Stricter: true},
		{Name: "exp that is a text", Token: exp(quoted(in(3600))), Want: token.Malformed},
		{Name: "exp that is true", Token: exp(`true`), Want: token.Malformed},
		{Name: "exp that is a list", Token: exp(`[` + in(3600) + `]`), Want: token.Malformed},
		{Name: "exp with a fraction", Token: exp(in(3600) + ".75")},
		{Name: "exp with an exponent", Token: exp("4.0e9")},
		{Name: "exp in the year 9999", Token: exp("253402300799")},
		{Name: "exp long after the year 9999", Token: exp("4000000000000000000")},
		{Name: "exp at the end of int64, which would be the past", Token: exp("9223372036854775807"), Want: token.Malformed},
		{Name: "exp within int64 and beyond what a clock can tell", Token: exp("9223372036854774784"), Want: token.Malformed},
		{Name: "exp beyond int64", Token: exp("10000000000000000000"), Want: token.Malformed},
		{Name: "exp far beyond int64", Token: exp("1e300"), Want: token.Malformed},
		{Name: "exp beyond any number", Token: exp("1e999"), Want: token.Malformed},
		{Name: "exp before the year 1", Token: exp("-62135596800"), Want: token.Malformed},
		{Name: "exp below int64", Token: exp("-10000000000000000000"), Want: token.Malformed},
		{Name: "exp 0", Token: Good(p.With("exp", "0").Without("nbf")), Want: token.Expired},
		{Name: "exp negative", Token: Good(p.With("exp", "-1").Without("nbf")), Want: token.Expired},
		{Name: "exp twice", Token: Good(p.And("exp", in(7200))), Want: token.Malformed},
		{Name: "nbf to come within the leeway", Token: Good(p.With("nbf", in(50)))},
		{Name: "nbf to come beyond the leeway", Token: Good(p.With("nbf", in(70))), Want: token.NotYetValid},
		{Name: "no nbf", Token: Good(p.Without("nbf"))},
		{Name: "nbf that is null", Token: Good(p.With("nbf", "null"))},
		{Name: "nbf that is a text", Token: Good(p.With("nbf", `"now"`)), Want: token.Malformed},
		{Name: "nbf at the end of int64, which would be the past", Token: Good(p.With("nbf", "9223372036854775807")), Want: token.Malformed, Stricter: true},
		{Name: "nbf within int64 and beyond what a clock can tell", Token: Good(p.With("nbf", "9223372036854774784")), Want: token.Malformed, Stricter: true},
		{Name: "exp at nbf", Token: Good(p.With("nbf", in(20)).With("exp", in(20)))},
		{Name: "exp before nbf", Token: Good(p.With("nbf", in(20)).With("exp", in(19))), Want: token.TimeInvalid, Stricter: true},
		{Name: "iat to come within the leeway", Token: Good(p.With("iat", in(50)))},
		{Name: "iat to come beyond the leeway", Token: Good(p.With("iat", in(70))), Want: token.IssuedInFuture},
		{Name: "no iat", Token: Good(p.Without("iat"))},
		{Name: "iat that is an object", Token: Good(p.With("iat", "{}")), Want: token.Malformed},
		{Name: "warnafter that is past", Token: Good(p.With("kubernetes.io", Bound().With("warnafter", "1").Text()))},
		{Name: "warnafter that is a text", Token: Good(p.With("kubernetes.io", Bound().With("warnafter", `"x"`).Text())), Want: token.Malformed},
	}
}

func boundCases(now time.Time) []Case {
	p := Payload(now)
	with := func(b Object) string { return Good(p.With("kubernetes.io", b.Text())) }
	account := Bound().Without("pod").Without("node")
	webhook := account.With("attestations", `{"admissionReviewAPIGroups":["*"]}`)
	return []Case{
		{Name: "bound to a secret", Token: with(account.And("secret", ref("robot-token", "d4")))},
		{Name: "bound to a node", Token: with(account.And("node", ref("worker-1", "a1")))},
		{Name: "bound to a pod without a node", Token: with(Bound().Without("node"))},
		{Name: "bound to a pod whose node has no uid", Token: with(Bound().With("node", `{"name":"worker-1"}`))},
		{Name: "bound to a validating webhook", Token: with(webhook.And("validatingwebhookconfiguration", ref("policy.example.com", "e5")))},
		{Name: "bound to a mutating webhook", Token: with(webhook.And("mutatingwebhookconfiguration", ref("policy.example.com", "e5")))},
		{Name: "bound to a webhook without an attestation", Token: with(account.And("validatingwebhookconfiguration", ref("policy.example.com", "e5"))), Want: token.AttestationAbsent},
		{Name: "bound to a webhook with an empty attestation", Token: with(webhook.With("attestations", `{"admissionReviewAPIGroups":[]}`).And("mutatingwebhookconfiguration", ref("policy.example.com", "e5"))), Want: token.AttestationAbsent},
		{Name: "an attestation without a webhook", Token: with(webhook)},
		{Name: "attestations that are a list", Token: with(webhook.With("attestations", `["*"]`)), Want: token.Malformed},
		{Name: "bound to a pod without a uid", Token: with(Bound().With("pod", `{"name":"robot-7d9f"}`)), Want: token.ClaimMissing, Stricter: true},
		{Name: "bound to a pod without a name", Token: with(Bound().With("pod", `{"uid":"b2"}`)), Want: token.ClaimMissing},
		{Name: "bound to nothing", Token: with(Bound().With("pod", `{}`)), Want: token.ClaimMissing},
		{Name: "bound to a pod that is null", Token: with(Bound().With("pod", `null`))},
		{Name: "bound to a node without a uid", Token: with(account.And("node", `{"name":"worker-1"}`)), Want: token.ClaimMissing, Stricter: true},
		{Name: "bound to a secret without a uid", Token: with(account.And("secret", `{"name":"robot-token"}`)), Want: token.ClaimMissing, Stricter: true},
		{Name: "bound to a pod whose name is none", Token: with(Bound().With("pod", ref("Robot_7", "b2"))), Want: token.NameInvalid, Stricter: true},
		{Name: "bound to a node whose name is a path", Token: with(account.And("node", ref("../worker-1", "a1"))), Want: token.NameInvalid, Stricter: true},
		{Name: "bound to a secret whose name is none", Token: with(account.And("secret", ref("", "d4"))), Want: token.ClaimMissing},
		{Name: "bound to a pod that is a text", Token: with(Bound().With("pod", `"robot-7d9f"`)), Want: token.Malformed},
		{Name: "the pod twice", Token: with(Bound().And("pod", ref("other", "x"))), Want: token.Malformed},
		{Name: "a claim of Kubernetes that is not known yet", Token: with(Bound().And("zone", `{"name":"a"}`))},
		{Name: "no jti", Token: Good(p.Without("jti"))},
		{Name: "a jti that is a number", Token: Good(p.With("jti", "7")), Want: token.Malformed},
		{Name: "no claims of Kubernetes", Token: Good(p.Without("kubernetes.io")), Want: token.ClaimMissing},
		{Name: "claims of Kubernetes that are null", Token: Good(p.With("kubernetes.io", "null")), Want: token.ClaimMissing},
		{Name: "claims of Kubernetes that are a list", Token: Good(p.With("kubernetes.io", "[]")), Want: token.Malformed},
		{Name: "claims of Kubernetes twice", Token: Good(p.And("kubernetes.io", Bound().Text())), Want: token.Malformed},
	}
}

func legacyCases(now time.Time) []Case {
	l := LegacyPayload()
	const claim = "kubernetes.io/serviceaccount/"
	in := func(seconds int) string { return at(now.Add(time.Duration(seconds) * time.Second)) }
	return []Case{
		{Name: "a token of a Secret", Token: Good(l)},
		{Name: "a token of a Secret without kid", Token: GoodUnder(Header(RSA).Without("kid"), l)},
		{Name: "a token of a Secret where no issuer is listed", Token: Good(l), Issuers: []string{}},
		{Name: "a token of a Secret where none is wanted", Token: Good(l), NoLegacy: true, Want: token.LegacyRefused, Stricter: true},
		{Name: "a token of a Secret, asked for the API server", Token: Good(l), Asked: []string{Issuer}},
		{Name: "a token of a Secret, asked for another audience", Token: Good(l), Asked: []string{"vault"}, Want: token.AudienceMismatch},
		{Name: "a token of a Secret, asked for another audience where no issuer is listed", Token: Good(l), Issuers: []string{}, Asked: []string{"vault"}, Want: token.AudienceMismatch, Stricter: true},
		{Name: "a token of a Secret under the issuer of projected ones", Token: Good(l.With("iss", quoted(Issuer)).And("exp", in(3600)).And("aud", list(Issuer))), Want: token.IssuerUnknown},
		{Name: "a projected token under the issuer of Secrets", Token: Good(Payload(now).With("iss", quoted(token.LegacyIssuer))), Want: token.ClaimMissing},
		{Name: "a projected token whose issuer is listed and that of Secrets", Token: Good(Payload(now).With("iss", quoted(token.LegacyIssuer)).With("aud", list(token.LegacyIssuer))), Issuers: []string{token.LegacyIssuer}},
		{Name: "a token of a Secret where none is wanted and its issuer is listed", Token: Good(l), Issuers: []string{token.LegacyIssuer}, NoLegacy: true, Want: token.LegacyRefused, Stricter: true},
		{Name: "a token of both forms under the issuer of Secrets", Token: Good(l.And("kubernetes.io", Bound().Text())), Want: token.FormAmbiguous, Stricter: true},
		{Name: "a token of both forms under another issuer", Token: Good(append(Payload(now), Member{claim + "secret.name", `"robot-token"`})), Want: token.FormAmbiguous, Stricter: true},
		{Name: "a token of a Secret that has expired", Token: Good(l.And("exp", in(-70))), Want: token.Expired, Stricter: true},
		{Name: "a token of a Secret that expires", Token: Good(l.And("exp", in(3600)))},
		{Name: "a token of a Secret that is not valid yet", Token: Good(l.And("nbf", in(70))), Want: token.NotYetValid, Stricter: true},
		{Name: "a token of a Secret that is issued in the future", Token: Good(l.And("iat", in(70))), Want: token.IssuedInFuture, Stricter: true},
		{Name: "a token of a Secret for the API server", Token: Good(l.And("aud", list(Issuer)))},
		{Name: "a token of a Secret for somebody else", Token: Good(l.And("aud", list("vault"))), Want: token.AudienceMismatch},
		{Name: "a token of a Secret for somebody else, who asks", Token: Good(l.And("aud", list("vault"))), Asked: []string{"vault"}, Want: token.AudienceMismatch, Stricter: true},
		{Name: "a token of a Secret with an empty list of audiences", Token: Good(l.And("aud", `[]`))},
		{Name: "a token of a Secret with aud null", Token: Good(l.And("aud", `null`)), Want: token.Malformed},
		{Name: "a token of a Secret without the Secret's name", Token: Good(l.Without(claim + "secret.name")), Want: token.ClaimMissing},
		{Name: "a token of a Secret without a uid", Token: Good(l.Without(claim + "service-account.uid")), Want: token.ClaimMissing},
		{Name: "a token of a Secret without a name", Token: Good(l.Without(claim + "service-account.name")), Want: token.ClaimMissing},
		{Name: "a token of a Secret without a namespace", Token: Good(l.Without(claim + "namespace")), Want: token.ClaimMissing},
		{Name: "a token of a Secret with another sub", Token: Good(l.With("sub", `"system:serviceaccount:kube-system:robot"`)), Want: token.SubjectMismatch},
		{Name: "a token of a Secret without sub", Token: Good(l.Without("sub")), Want: token.SubjectMismatch},
		{Name: "a token of a Secret whose name is none", Token: Good(l.With(claim+"secret.name", `"Robot Token"`)), Want: token.NameInvalid, Stricter: true},
		{Name: "a token of a Secret with a namespace that is none", Token: Good(l.With(claim+"namespace", `"Apps"`).With("sub", `"system:serviceaccount:Apps:robot"`)), Want: token.NameInvalid},
		{Name: "a token of a Secret, signed with a foreign key", Token: Signed(Foreign, Header(Foreign), l), Want: token.KeyUnknown},
		{Name: "a token of a Secret with a jti", Token: Good(l.And("jti", `"x"`))},
	}
}
