package tokenhttp_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

// A service that greets who calls, by the tokens of a cluster whose issuer it can
// reach.
func ExampleRequire() {
	keys := tokenhttp.Discover("https://issuer.example.com", nil)
	verifier, err := token.NewVerifier(token.Config{Keys: keys, Issuers: []string{"https://issuer.example.com"}, Audiences: []string{"shop"}})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/", tokenhttp.Require(verifier, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello,", token.FromContext(r.Context()).User.Username)
	})))
	log.Fatal(http.ListenAndServeTLS(":8443", "tls.crt", "tls.key", nil))
}
