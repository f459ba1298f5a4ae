package load

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// tokenLife is the life of the token that is held, in seconds. As the kubelet
// does, it is replaced when four fifths of it are over.
const tokenLife = 3600

// tokenStreams show that tokens of service accounts are signed by a key that
// every API server knows: new ones, and one from long before.
func (s *site) tokenStreams(context.Context, *clients) ([]*Stream, error) {
	minted, held := &tokens{site: s, user: s.administrator()}, &tokens{site: s, user: s.administrator(), hold: true}
	return []*Stream{
		{Name: "token", Link: 12, Every: time.Second, Do: minted.do, Close: minted.user.close},
		{Name: "token-held", Link: 12, Every: time.Second, Do: held.do, Close: held.user.close},
	}, nil
}

// tokens requests tokens of the run's service account and uses them, each time
// on a connection of its own.
type tokens struct {
	site *site
	user *user
	hold bool // one token for as long as it is good

	token   string
	renewAt time.Time
}

func (t *tokens) do(ctx context.Context) error {
	return t.user.call(func(c *clients) error {
		if !t.hold || time.Now().After(t.renewAt) {
			if err := t.request(ctx, c); err != nil {
				return err
			}
		}
		pod := rest.AnonymousClientConfig(c.config)
		pod.BearerToken = t.token
		bearer, err := newClients(pod)
		if err != nil {
			return err
		}
		defer bearer.close()
		return bearer.whoAmI(ctx, "system:serviceaccount:"+namespace+":"+t.site.account())
	})
}

func (t *tokens) request(ctx context.Context, c *clients) error {
	answer, err := c.core.ServiceAccounts(namespace).CreateToken(ctx, t.site.account(), &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](tokenLife)},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	t.token = answer.Status.Token
	t.renewAt = time.Now().Add(time.Until(answer.Status.ExpirationTimestamp.Time) * 4 / 5)
	return nil
}
