package load

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/podclient"
)

// The pod that uses the API by itself, as package objects has it.
const (
	clientNamespace = "lab-client"
	clientName      = "client"
	clientCounts    = "http://127.0.0.1:9445/counts"
	countsLimit     = 64 << 10
	// podTimeout is more than the time that the pod gives each of its requests.
	podTimeout = 15 * time.Second
)

// podStreams ask the pod that uses the API, with the token volume that the
// kubelet mounted for it, how its requests went.
func (s *site) podStreams(ctx context.Context, c *clients) ([]*Stream, error) {
	_, err := c.apps.Deployments(clientNamespace).Get(ctx, clientName, metav1.GetOptions{})
	found, err := exists(err)
	if err != nil {
		return nil, err
	}
	if !found {
		s.absent("pod", 17, "there is no Deployment "+clientName+" in "+clientNamespace)
		return nil, nil
	}
	p := &podCounts{site: s, user: s.administrator()}
	return []*Stream{{Name: "pod", Link: 17, Every: 2 * time.Second, Do: p.do, Close: p.user.close}}, nil
}

// podCounts compares what the pod counts with what it counted before. The pod
// makes several requests between two looks; that some of them failed is one
// failure here, which says how many.
type podCounts struct {
	site   *site
	user   *user
	pod    types.UID
	counts map[string]podclient.Counts
	moved  map[string]time.Time // when a request of a kind was last seen to have ended
}

func (p *podCounts) do(ctx context.Context) error {
	pod, err := p.find(ctx)
	if err != nil {
		return err
	}
	now, err := p.ask(ctx, pod.Spec.NodeName)
	if err != nil {
		return fmt.Errorf("ask pod %s on node %s: %w", pod.Name, pod.Spec.NodeName, err)
	}
	before := p.counts
	if p.pod != pod.UID {
		before = nil // another pod: nothing to compare with
	}
	p.pod, p.counts = pod.UID, now
	if before == nil {
		p.moved = map[string]time.Time{}
	}
	for kind, is := range now {
		if before == nil || is.Requests != before[kind].Requests {
			p.moved[kind] = time.Now()
		}
		if silent := time.Since(p.moved[kind]); silent > podTimeout {
			return fmt.Errorf("no %s request has ended for %.1f s", kind, silent.Seconds())
		}
	}
	if before == nil {
		return nil
	}
	return compare(before, now)
}

// compare tells which requests have failed between two looks.
func compare(before, now map[string]podclient.Counts) error {
	var faults []string
	for _, kind := range slices.Sorted(maps.Keys(now)) {
		is, was := now[kind], before[kind]
		if is.Requests < was.Requests {
			was = podclient.Counts{} // its program was started again
		}
		requests, failures := is.Requests-was.Requests, is.Failures-was.Failures
		if failures > 0 {
			faults = append(faults, fmt.Sprintf("%d of %d %s requests failed; the last request: %s", failures, requests, kind, cmp.Or(is.Last, "succeeded")))
		}
	}
	if faults != nil {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// find finds the pod that runs.
func (p *podCounts) find(ctx context.Context) (pod *corev1.Pod, err error) {
	err = p.user.call(func(c *clients) error {
		pods, err := c.core.Pods(clientNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + clientName})
		if err != nil {
			return err
		}
		for i, candidate := range pods.Items {
			if candidate.Status.Phase == corev1.PodRunning && candidate.DeletionTimestamp == nil {
				pod = &pods.Items[i]
			}
		}
		if pod == nil {
			return fmt.Errorf("none of the %d pods of the Deployment %s runs", len(pods.Items), clientName)
		}
		return nil
	})
	return pod, err
}

// ask asks the pod's program, which answers on the loopback of its node.
func (p *podCounts) ask(ctx context.Context, node string) (map[string]podclient.Counts, error) {
	transport := &http.Transport{DialContext: lab.DialFrom(p.site.folder.Network(node))}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, clientCounts, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, countsLimit))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", clientCounts, answer.Status)
	}
	counts := map[string]podclient.Counts{}
	return counts, json.Unmarshal(body, &counts)
}
