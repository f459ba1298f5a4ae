package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/lab/internal/webhook"
)

const (
	webhookConfiguration = "lab-webhook"
	judgeLabel           = "lab.kubepki.dev/webhook" // on what it has to judge
)

// webhookStreams write what the admission webhook has to judge.
func (s *site) webhookStreams(ctx context.Context, c *clients) ([]*Stream, error) {
	const path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + webhookConfiguration
	found, err := exists(c.core.RESTClient().Get().AbsPath(path).Do(ctx).Error())
	if err != nil {
		return nil, err
	}
	if !found {
		s.absent("webhook", 14, "there is no ValidatingWebhookConfiguration "+webhookConfiguration)
		return nil, nil
	}
	j := &judged{site: s, user: s.visitor()}
	return []*Stream{{Name: "webhook", Link: 14, Every: time.Second, Do: j.do}}, nil
}

// judged writes, without effect, one object that the webhook allows and one that
// it must refuse: were it not asked, both would be written.
type judged struct {
	site *site
	user *user
}

func (j *judged) do(ctx context.Context) error {
	object := &corev1.ConfigMap{ObjectMeta: j.site.meta("judged")}
	object.Labels[judgeLabel] = "judge"
	try := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	return j.user.call(func(c *clients) error {
		if _, err := c.core.ConfigMaps(namespace).Create(ctx, object, try); err != nil {
			return err
		}
		reason := rand.Text()
		object.Data = map[string]string{webhook.RefuseKey: reason}
		_, err := c.core.ConfigMaps(namespace).Create(ctx, object, try)
		if err == nil {
			return fmt.Errorf("the webhook was not asked: what it refuses was written")
		}
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), reason) {
			return err
		}
		return nil
	})
}
