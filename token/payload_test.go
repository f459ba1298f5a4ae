package token_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/token"
)

// goodPayload is what kube-apiserver has signed for a pod.
const goodPayload = `{"aud":["https://a.test"],"exp":1700003607,"iat":1700000000,"iss":"https://a.test","jti":"j",` +
	`"kubernetes.io":{"namespace":"ns","node":{"name":"n1","uid":"nu"},"pod":{"name":"p","uid":"pu"},"serviceaccount":{"name":"sa","uid":"su"},"warnafter":1700003607},` +
	`"nbf":1700000000,"sub":"system:serviceaccount:ns:sa"}`

func TestParsePayload(t *testing.T) {
	change := func(old, replacement string) string {
		if !strings.Contains(goodPayload, old) {
			t.Fatalf("there is no %s to change", old)
		}
		return strings.Replace(goodPayload, old, replacement, 1)
	}
	rows := map[string]struct {
		payload string
		want    token.ReasonID // empty: it is taken
	}{
		"what kube-apiserver makes": {goodPayload, ""},
		"with blanks":               {" " + change(",", " ,\n") + " ", ""},
		"a claim of a later version within kubernetes.io": {change(`"namespace":"ns"`, `"namespace":"ns","zone":{"name":"z"}`), ""},
		"a claim of another kind of token":                {change(`"jti":"j"`, `"jti":"j","email":"root@a.test"`), token.Malformed},
		"groups":                                          {change(`"jti":"j"`, `"groups":["system:masters"]`), token.Malformed},
		"a claim in other letters":                        {change(`"jti":"j"`, `"Sub":"system:serviceaccount:ns:other"`), token.Malformed},
		"a claim twice":                                   {change(`"jti":"j"`, `"iss":"https://b.test"`), token.Malformed},
		"a claim of another type":                         {change(`"exp":1700003607`, `"exp":"1700003607"`), token.Malformed},
		"more after the end":                              {goodPayload + "{}", token.Malformed},
		"nested deeply":                                   {change(`"namespace":"ns"`, `"namespace":"ns","x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)), token.Malformed},
		"no issuer":                                       {change(`"iss":"https://a.test",`, ``), token.IssuerUnknown},
		"no audience":                                     {change(`["https://a.test"]`, `[]`), token.AudienceMismatch},
		"no end":                                          {change(`"exp":1700003607,`, ``), token.ExpiryMissing},
		"an end before the beginning":                     {change(`"nbf":1700000000`, `"nbf":1800000000`), token.TimeInvalid},
		"a subject that is somebody else":                 {change(`ns:sa"`, `kube-system:sa"`), token.SubjectMismatch},
		"no uid of the service account":                   {change(`,"uid":"su"`, ``), token.ClaimMissing},
		"a name that is none":                             {strings.ReplaceAll(goodPayload, `"ns"`, `"n/s"`), token.NameInvalid},
		"claims of a Secret's token beside":               {change(`"jti":"j"`, `"kubernetes.io/serviceaccount/namespace":"ns"`), token.FormAmbiguous},
		"no claims of Kubernetes":                         {`{"aud":["a"],"exp":1700003607,"iss":"https://a.test","sub":"system:serviceaccount:ns:sa"}`, token.ClaimMissing},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			c, err := token.ParsePayload(base64.RawURLEncoding.EncodeToString([]byte(row.payload)))
			wantRefusal(t, err, row.want)
			if err == nil && (c.Issuer != "https://a.test" || c.ServiceAccount.Name != "sa" || c.Expires.Unix() != 1700003607) {
				t.Errorf("the claims are %+v", c)
			}
		})
	}
}

// What is signed must be what was judged: there is one way to write it.
func TestPayloadIsStrictBase64URL(t *testing.T) {
	good := base64.RawURLEncoding.EncodeToString([]byte(goodPayload + " ")) // its last character has bits to spare
	if _, err := token.ParsePayload(good); err != nil {
		t.Fatal(err)
	}
	last := good[len(good)-1]
	for name, text := range map[string]string{
		"padding": good + "==", "a line end": good[:8] + "\n" + good[8:], "a blank": good + " ", "the other alphabet": "+/" + good,
		"spare bits that are set": good[:len(good)-1] + string(last+1), "a dot": good + ".", "nothing": "",
	} {
		_, err := token.ParsePayload(text)
		if wantRefusal(t, err, token.Malformed); t.Failed() {
			t.Fatal(name)
		}
	}
	_, err := token.ParsePayload(strings.Repeat("A", token.MaxSize+1))
	wantRefusal(t, err, token.TooLarge)
}

// wantRefusal checks that an error is a refusal for a reason; none: no error.
func wantRefusal(t *testing.T, err error, want token.ReasonID) {
	t.Helper()
	var refused *token.RefusedError
	switch {
	case want == "" && err != nil:
		t.Errorf("it is refused: %v", err)
	case want != "" && (!errors.As(err, &refused) || !refused.Has(want)):
		t.Errorf("got %v, want the reason %s", err, want)
	}
}
