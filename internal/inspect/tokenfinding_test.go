package inspect_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/tokentest"
)

// One good token, and one thing remarkable per row. The good one has nothing.
func TestTokenFindings(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	p := tokentest.Payload(at)
	unix := func(d time.Duration) string { return strconv.FormatInt(at.Add(d).Unix(), 10) }
	account := tokentest.Bound().Without("pod").Without("node")
	seen := map[string]bool{}
	for name, row := range map[string]struct {
		text string
		want string // severity and id, with commas between several
	}{
		"a token of a pod":                          {tokentest.Good(p), ""},
		"a token of a pod, just before it is stale": {tokentest.Good(p.With("kubernetes.io", tokentest.Bound().With("warnafter", unix(time.Second)).Text())), ""},
		"a token of a day":                          {tokentest.Good(p.With("exp", unix(24*time.Hour))), ""},
		"a token of two days":                       {tokentest.Good(p.With("exp", unix(48*time.Hour)).With("kubernetes.io", tokentest.Bound().Without("warnafter").Text())), "warning sa-token-long"},
		"a token that was extended to a year":       {tokentest.Good(p.With("exp", unix(365*24*time.Hour))), "info sa-token-extended"},
		"a token that was extended beyond a year":   {tokentest.Good(p.With("exp", unix(3*365*24*time.Hour))), "warning sa-token-long"},
		"a token after all calendars":               {tokentest.Good(p.With("exp", "4000000000000000000")), "warning sa-token-long"},
		"a token that began before all clocks":      {tokentest.Good(p.With("nbf", "-1000000").With("iat", "-1000000").With("kubernetes.io", tokentest.Bound().Without("warnafter").Text())), "warning sa-token-long"},
		"a token for nobody":                        {tokentest.Good(p.Without("aud")), "error sa-token-invalid"},
		"a token of both forms":                     {tokentest.Good(tokentest.LegacyPayload().And("kubernetes.io", tokentest.Bound().Text())), "error sa-token-invalid,warning sa-token-legacy"},
		"a token without a uid":                     {tokentest.Good(p.With("kubernetes.io", tokentest.Bound().With("serviceaccount", `{"name":"robot"}`).Text())), "error sa-token-invalid"},
		"a token that is stale":                     {tokentest.Good(p.With("kubernetes.io", tokentest.Bound().With("warnafter", unix(-time.Second)).Text())), "warning sa-token-stale"},
		"a token that has expired":                  {tokentest.Good(p.With("exp", unix(-time.Second)).With("iat", unix(-time.Hour)).With("nbf", unix(-time.Hour))), "error sa-token-expired"},
		"a token of tomorrow":                       {tokentest.Good(p.With("nbf", unix(24*time.Hour)).With("exp", unix(25*time.Hour)).With("iat", unix(24*time.Hour))), "error sa-token-not-yet-valid"},
		"a token of a clock that is ahead":          {tokentest.Good(p.With("nbf", unix(59*time.Second)).With("iat", unix(59*time.Second))), ""},
		"a token of a clock that is wrong":          {tokentest.Good(p.With("nbf", unix(61*time.Second)).With("iat", unix(61*time.Second))), "error sa-token-not-yet-valid"},
		"a token of a Secret":                       {tokentest.Good(tokentest.LegacyPayload()), "warning sa-token-legacy"},
		"a token of a Secret that expires":          {tokentest.Good(tokentest.LegacyPayload().And("exp", unix(time.Hour))), "info sa-token-legacy"},
		"a token without end":                       {tokentest.Good(p.Without("exp")), "warning sa-token-unbounded"},
		"a token of two, the API server too":        {tokentest.Good(p.With("aud", `["vault","`+tokentest.Issuer+`"]`)), "warning sa-token-wide"},
		"a token of two others":                     {tokentest.Good(p.With("aud", `["vault","registry"]`)), "info sa-token-wide"},
		"a token that is bound to nothing":          {tokentest.Good(p.With("kubernetes.io", account.Without("warnafter").Text())), "info sa-token-unbound"},
		"a token of a secret":                       {tokentest.Good(p.With("kubernetes.io", account.And("secret", `{"name":"x","uid":"y"}`).Text())), ""},
		"a token of a webhook":                      {tokentest.Good(p.With("kubernetes.io", account.And("mutatingwebhookconfiguration", `{"name":"x","uid":"y"}`).And("attestations", `{"admissionReviewAPIGroups":["*"]}`).Text())), ""},
		"a token of a user":                         {tokentest.Good(p.Without("kubernetes.io").With("sub", `"jane"`)), "info sa-token-foreign"},
		"a token about two":                         {tokentest.Good(p.With("sub", `"system:serviceaccount:apps:admin"`)), "error sa-token-invalid"},
		"a token with PS256":                        {tokentest.Forge(tokentest.Header(tokentest.RSA).With("alg", `"PS256"`).Text(), p.Text(), "PS256", tokentest.Key(tokentest.RSA), nil), "error sa-token-invalid"},
		"a token without signature":                 {tokentest.Forge(`{"alg":"none"}`, p.Text(), "none", nil, nil), "error sa-token-invalid"},
		"a long, wide and unbound token":            {tokentest.Good(p.With("aud", `["a","b"]`).With("exp", unix(48*time.Hour)).With("kubernetes.io", account.Without("warnafter").Text())), "warning sa-token-long,info sa-token-wide,info sa-token-unbound"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := inspect.ReadToken(row.text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range token.Findings(at) {
				got = append(got, f.Severity+" "+f.ID)
				seen[f.ID] = true
				if strings.Contains(f.Message, row.text[:20]) || f.Message == "" {
					t.Errorf("the message is %q", f.Message)
				}
			}
			if strings.Join(got, ",") != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
	docs, err := os.ReadFile("../../docs/sa.md")
	if err != nil {
		t.Fatal(err)
	}
	for id := range seen {
		if !strings.Contains(string(docs), "`"+id+"`") {
			t.Errorf("docs/sa.md does not say what %s is", id)
		}
	}
}

// TestWideTokensByTheAudiencesOfTheAPIServer, where they are known.
func TestWideTokensByTheAudiencesOfTheAPIServer(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct{ aud, want string }{
		"both are the API server's":         {`["api","api-old"]`, ""},
		"one is":                            {`["vault","api"]`, "warning"},
		"none is, though one is the issuer": {`["vault","` + tokentest.Issuer + `"]`, "info"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := inspect.ReadToken(tokentest.Good(tokentest.Payload(at).With("aud", row.aud)))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, f := range token.Findings(at, "api", "api-old") {
				if f.ID == "sa-token-wide" {
					got = f.Severity
				}
			}
			if got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestReadTokenSaysWhatIsWrong(t *testing.T) {
	good := tokentest.Good(tokentest.Payload(time.Now()))
	for name, row := range map[string][2]string{
		"cut off":           {good[:len(good)-3], ""},
		"with a line end":   {good[:50] + "\n" + good[50:], "line ends"},
		"with padding":      {good + "=", "strict base64url"},
		"of two parts":      {good[:strings.LastIndex(good, ".")], "three parts"},
		"with a name twice": {tokentest.Good(tokentest.Payload(time.Now()).And("iss", `"x"`)), "twice"},
		"nothing":           {"", "it is empty"},
		"a bootstrap token": {"abcdef.0123456789abcdef", "three parts"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspect.ReadToken(row[0])
			if row[1] == "" {
				if err != nil && strings.Contains(err.Error(), good[:10]) {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row[1]) || strings.Contains(err.Error(), "eyJ") {
				t.Errorf("%v, want %q", err, row[1])
			}
		})
	}
}
