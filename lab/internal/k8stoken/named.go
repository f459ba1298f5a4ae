package k8stoken

import "gopkg.in/go-jose/go-jose.v2/jwt"

// ReadNamed returns the uids that a token names, by kind, decoded as Kubernetes
// decodes them. There are none when it does not decode.
func ReadNamed(token string) Named {
	parsed, err := jwt.ParseSigned(token)
	if err != nil {
		return nil
	}
	var claims struct {
		Bound map[string]any `json:"kubernetes.io"`
	}
	if parsed.UnsafeClaimsWithoutVerification(&claims) != nil {
		return nil
	}
	uids := make(Named)
	for kind, value := range claims.Bound {
		if object, ok := value.(map[string]any); ok {
			uids[kind], _ = object["uid"].(string)
		}
	}
	return uids
}
