package acmeissuer

import (
	"bytes"
	"io"
	"net/http"

	"github.com/mholt/acmez/v3/acme"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"encoding/base64"
	"encoding/json"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
)

func gatewaySolver() *cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute {
	return &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{ParentRefs: []gwapi.ParentReference{{Name: "front"}}}
}

func acmeOrder(url string) acme.Order { return acme.Order{Location: url} }

// bodyOf returns the payload of a signed request, which can be read again.
func bodyOf(r *http.Request) string {
	data, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(data))
	var signed struct{ Payload string }
	_ = json.Unmarshal(data, &signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	return string(payload)
}
