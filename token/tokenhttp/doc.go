// Package tokenhttp brings package token to net/http: a middleware that gives
// handlers a verified user, and keys that an issuer publishes.
//
// A whole service, for clients in a cluster whose issuer can be reached:
//
//	keys := tokenhttp.Discover("https://issuer.example.com", nil)
//	verifier, err := token.NewVerifier(token.Config{
//		Keys: keys, Issuers: []string{"https://issuer.example.com"}, Audiences: []string{"shop"},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.Handle("/", tokenhttp.Require(verifier, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		fmt.Fprintln(w, "hello,", token.FromContext(r.Context()).User.Username)
//	})))
package tokenhttp
