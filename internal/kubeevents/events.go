// Package kubeevents tells people of a cluster what the agent sees and does, as Events
// of the Kubernetes API: on the Node whose files are concerned, or on the Secret or
// ConfigMap.
//
// Events cost the API server writes, so that they are few: what is the same is told
// once a day, what is of one Node in one Event, and all together are limited.
// client-go's recorder is not used, as it takes Events for the same that differ in
// their note alone, which here says which certificate it is.
package kubeevents

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedeventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/report"
)

// The reasons of Events.
const (
	CertificateExpiring = "CertificateExpiring"
	CertificateRenewed  = "CertificateRenewed"
	RenewalFailed       = "RenewalFailed"
	ComponentRestarted  = "ComponentRestarted"
	RestartFailed       = "RestartFailed"
	LinkBroken          = "LinkBroken"
)

// controller is who reports.
const controller = "kubepki.dev/agent"

// Options are the options of [New].
type Options struct {
	Events typedeventsv1.EventsV1Interface
	// Node is the name of the Node that files without the name of another one are of.
	Node string
	// Instance tells this agent from others; "": Node.
	Instance string
	// UID returns that of the Secret or ConfigMap at a path of places; nil or "": not
	// known. kubectl describe shows the Events of a UID alone.
	UID func(path string) string
	Log *slog.Logger
	Now func() time.Time // nil: time.Now
}

// Teller makes Events of what a [agent.Board] is told. It is safe for concurrent use.
type Teller struct {
	o     Options
	board *agent.Board
	queue chan event
	looks chan struct{}
	limit flowcontrol.RateLimiter

	mu   sync.Mutex
	told map[string]told // by object and reason
}

// told is what was told of an object for a reason, and when.
type told struct {
	what string
	at   time.Time
}

// event is one that is to be made.
type event struct {
	regarding            corev1.ObjectReference
	kind, reason, action string
	note                 string
}

// What Events of one process may cost: so many at once, then one each ten seconds.
// Further ones wait, and of those that wait too many are lost, which is logged.
const (
	burst   = 20
	rate    = 0.1
	waiting = 200
	// reserve of those that wait is for decisions.
	reserve = 50
	// again is after how long the same is told again.
	again = 24 * time.Hour
	// calm is how long nothing else is told of an object for one reason, for what
	// comes and goes.
	calm = 10 * time.Minute
	// remembered is how many objects are known to have been told of.
	remembered = 20_000
	// lookEvery is how often what ends soon is looked for.
	lookEvery = time.Minute
)

// New returns a Teller of a board, which is told of decisions from now on.
func New(b *agent.Board, o Options) *Teller {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Instance == "" {
		o.Instance = o.Node
	}
	if o.UID == nil {
		o.UID = func(string) string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Teller{o: o, board: b, told: map[string]told{}, queue: make(chan event, waiting), looks: make(chan struct{}, 1), limit: flowcontrol.NewTokenBucketRateLimiter(rate, burst)}
	b.Listen(t.hear)
	return t
}

// hear is called by the agent's loop, which must not wait.
func (t *Teller) hear(c agent.Change) {
	if c.Decision != nil {
		if e, ok := t.decision(c.Decision); ok {
			t.put(e)
		}
	}
	if c.Verified != nil {
		select {
		case t.looks <- struct{}{}:
		default:
		}
	}
}

// put hands an event over, or counts it as lost.
func (t *Teller) put(e event) {
	select {
	case t.queue <- e:
	default:
		t.o.Log.Warn("an Event is not made: too many are waiting", "reason", e.reason, "of", e.regarding.Name)
	}
}

// Run makes Events until the context ends.
func (t *Teller) Run(ctx context.Context) error {
	go t.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-t.queue:
			if t.limit.Wait(ctx) == nil {
				t.make(ctx, e)
			}
		}
	}
}

// look looks at what is there, after each reading and each minute.
func (t *Teller) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.looks:
		case <-tick.C:
		}
		s := t.board.Snapshot()
		for _, e := range t.state(&s) {
			t.put(e)
		}
	}
}

// tries is how often an Event is tried to be made.
const tries = 3

// make makes one Event.
func (t *Teller) make(ctx context.Context, e event) {
	object := t.object(e)
	var err error
	for range tries {
		call, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err = t.o.Events.Events(object.Namespace).Create(call, object, metav1.CreateOptions{})
		cancel()
		if err == nil || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
	if err != nil {
		t.o.Log.Warn("an Event could not be made", "reason", e.reason, "of", e.regarding.Name, "error", err)
	}
}

func (t *Teller) object(e event) *eventsv1.Event {
	namespace := e.regarding.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "kubepki-", Namespace: namespace},
		EventTime:  metav1.NewMicroTime(t.o.Now()), ReportingController: controller, ReportingInstance: bounded(t.o.Instance, 128),
		Action: e.action, Reason: e.reason, Regarding: e.regarding, Note: bounded(e.note, 1024), Type: e.kind,
	}
}

// bounded cuts a text to what the API takes.
func bounded(text string, most int) string {
	text = report.Plain(strings.ToValidUTF8(text, "?"))
	if len(text) <= most {
		return text
	}
	const end = "…"
	return strings.ToValidUTF8(text[:most-len(end)], "") + end
}

// nodeReference refers to a Node as the kubelet does: with its name for a UID, which is
// what kubectl describe asks for.
func (t *Teller) nodeReference(name string) corev1.ObjectReference {
	if name == "" {
		name = t.o.Node
	}
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(name)}
}
