package inspect_test

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/inspect"
)

// A service-account token says whose it is, to whoever holds it.
func ExampleDescribe() {
	const token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0" + // {"alg":"RS256","kid":"k1"}
		".eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6Y2k6cm9ib3QifQ" + // {"sub":"system:serviceaccount:ci:robot"}
		".c2lnbmF0dXJl"
	d, err := inspect.Describe([]byte(token))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Format, d.Parts[0].Token.KeyID, d.Parts[0].Token.Subject)
	// Output: token k1 system:serviceaccount:ci:robot
}
