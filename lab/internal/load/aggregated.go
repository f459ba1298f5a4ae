package load

import (
	"context"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	wardle "k8s.io/sample-apiserver/pkg/apis/wardle/v1alpha1"
)

// otherUser is who calls besides the administrator: its name and groups must
// come to the extension API server through the front proxy's headers.
func (s *site) otherUser() string { return "kubepki-lab-load-" + s.id }

// aggregatedStreams call the extension API server, as the administrator and as
// another user, on connections of their own.
func (s *site) aggregatedStreams(ctx context.Context, c *clients) ([]*Stream, error) {
	const service = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com"
	found, err := exists(c.core.RESTClient().Get().AbsPath(service).Do(ctx).Error())
	if err != nil {
		return nil, err
	}
	if !found {
		for _, kind := range []string{"aggregated", "aggregated-user"} {
			s.absent(kind, 13, "no APIService v1alpha1.wardle.example.com is registered")
		}
		return nil, nil
	}
	s.extended = true
	other := s.visitor()
	other.as = func(config *rest.Config) { config.Impersonate.UserName = s.otherUser() }
	return []*Stream{
		{Name: "aggregated", Link: 13, Every: time.Second, Do: (&flunders{site: s, user: s.visitor(), name: "admin"}).do},
		{Name: "aggregated-user", Link: 13, Every: time.Second, Do: (&flunders{site: s, user: other, name: "user"}).do},
	}, nil
}

// flunders creates, lists and deletes an object of the extension API server.
type flunders struct {
	site *site
	user *user
	name string
	n    int
}

func (f *flunders) do(ctx context.Context) error {
	f.n++
	object := &wardle.Flunder{ObjectMeta: f.site.meta(f.name + "-" + strconv.Itoa(f.n))}
	return f.user.call(func(c *clients) error {
		all := c.wardle.Flunders(namespace)
		if _, err := all.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return err
		}
		list, err := all.List(ctx, metav1.ListOptions{LabelSelector: label + "=" + f.site.id})
		if err != nil {
			return err
		}
		found := false
		for _, o := range list.Items {
			found = found || o.Name == object.Name
		}
		if !found {
			return fmt.Errorf("flunder %s is not in the list", object.Name)
		}
		return all.Delete(ctx, object.Name, metav1.DeleteOptions{})
	})
}
