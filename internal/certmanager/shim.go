package certmanager

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubepki/kubepki/internal/shim"
)

// shimWorkers are how many parents are in work at the same time.
const shimWorkers = 8

// ShimOptions are the settings of [Shim].
type ShimOptions struct {
	Client *Client
	// Ingresses and Gateways say of what Certificates are made; ListenerSets go with
	// Gateways.
	Ingresses, Gateways bool
	Defaults            shim.Defaults
	Log                 *slog.Logger
	Events              Events // nil: none
}

// Shim makes Certificates of annotated Ingresses, Gateways and ListenerSets. It keeps the
// annotated ones, and the Certificates that are made of such objects; no other.
type Shim struct {
	ShimOptions
	kinds  []*shimKind
	made   *store[cmapi.Certificate]
	byUID  map[types.UID][]string // made Certificates by what they are of; guarded by the lock of made
	queue  workqueue.TypedRateLimitingInterface[parentKey]
	ofKind map[string]*shimKind

	mu   sync.Mutex
	said map[parentKey][]string // what is wrong with parents, as it was told
}

// shimKind is a kind of parents.
type shimKind struct {
	schema.GroupVersionKind
	resource string
	object   any // of the watch
	client   func(*Client) rest.Interface
	parents  *store[shim.Parent]
	// absent says that the API server has no such resource; it is looked for again.
	absent atomic.Bool
}

// parentKey names a parent.
type parentKey struct {
	kind string
	types.NamespacedName
}

// String names the parent as log lines have it.
func (k parentKey) String() string { return k.kind + " " + k.NamespacedName.String() }

// NewShim makes a shim.
func NewShim(o ShimOptions) *Shim {
	if o.Events == nil {
		o.Events = noEvents{}
	}
	s := &Shim{ShimOptions: o, made: newStore(reduceMade), byUID: map[types.UID][]string{}, queue: newQueue[parentKey](), ofKind: map[string]*shimKind{}, said: map[parentKey][]string{}}
	s.made.index = func(key types.NamespacedName, before, after *cmapi.Certificate) {
		reindex(s.byUID, key.Name, ownerUID(before), ownerUID(after))
	}
	s.made.told = s.madeTold
	gateways := func(c *Client) rest.Interface { return c.Gateways }
	if o.Ingresses {
		s.add(shim.Ingress, "ingresses", &networkingv1.Ingress{}, func(c *Client) rest.Interface { return c.Kube.NetworkingV1().RESTClient() })
	}
	if o.Gateways {
		s.add(shim.Gateway, "gateways", &gwapi.Gateway{}, gateways)
		s.add(shim.ListenerSet, "listenersets", &gwapi.ListenerSet{}, gateways)
	}
	return s
}

func (s *Shim) add(kind schema.GroupVersionKind, resource string, object any, client func(*Client) rest.Interface) {
	k := &shimKind{GroupVersionKind: kind, resource: resource, object: object, client: client, parents: newStore(s.reduceParent)}
	k.parents.told = func(key types.NamespacedName, before, after *shim.Parent) {
		// A status that changes changes nothing here.
		if !equality.Semantic.DeepEqual(before, after) {
			s.queue.Add(parentKey{kind.Kind, key})
		}
	}
	s.kinds, s.ofKind[kind.Kind] = append(s.kinds, k), k
}

// reduceParent keeps of a parent what Certificates are made of; nil: it asks for none.
func (s *Shim) reduceParent(o any) (*shim.Parent, error) {
	var p *shim.Parent
	switch o := o.(type) {
	case *networkingv1.Ingress:
		p = shim.OfIngress(o)
	case *gwapi.Gateway:
		p = shim.OfGateway(o)
	case *gwapi.ListenerSet:
		p = shim.OfListenerSet(o)
	default:
		return nil, fmt.Errorf("a watch gave a %T", o)
	}
	if !s.Defaults.Asks(p) {
		return nil, nil
	}
	delete(p.Annotations, corev1.LastAppliedConfigAnnotation)
	return p, nil
}

// reduceMade keeps of a Certificate that an Ingress, a Gateway or a ListenerSet controls
// what can differ; nil: it is another's.
func reduceMade(o any) (*cmapi.Certificate, error) {
	c, err := reduceCertificate(o)
	if err != nil {
		return nil, err
	}
	owner := metav1.GetControllerOfNoCopy(c)
	if owner == nil || !slices.Contains([]string{shim.Ingress.Kind, shim.Gateway.Kind, shim.ListenerSet.Kind}, owner.Kind) {
		return nil, nil
	}
	c.Status = cmapi.CertificateStatus{}
	return c, nil
}

func ownerUID(c *cmapi.Certificate) types.UID {
	if c == nil {
		return ""
	}
	return metav1.GetControllerOfNoCopy(c).UID
}

// madeTold looks again at what a Certificate is of.
func (s *Shim) madeTold(key types.NamespacedName, before, after *cmapi.Certificate) {
	if equality.Semantic.DeepEqual(before, after) {
		return // its status alone has changed
	}
	for _, c := range []*cmapi.Certificate{before, after} {
		if c == nil {
			continue
		}
		owner := metav1.GetControllerOfNoCopy(c)
		if s.ofKind[owner.Kind] != nil {
			s.queue.Add(parentKey{owner.Kind, types.NamespacedName{Namespace: key.Namespace, Name: owner.Name}})
		}
	}
}

// Synced tells whether all that there is has been seen.
func (s *Shim) Synced() bool {
	for _, k := range s.kinds {
		if !k.parents.isSynced() && !k.absent.Load() {
			return false
		}
	}
	return s.made.isSynced()
}

// Run works until the context ends, and finishes what it has begun.
func (s *Shim) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { watch(ctx, s.Client.CM, certificates, "", all, &cmapi.Certificate{}, s.made) })
	for _, k := range s.kinds {
		running.Go(func() { s.watchKind(ctx, k) })
	}
	select {
	case <-ctx.Done():
	case <-s.made.synced:
		work(ctx, &running, shimWorkers, s.queue, s.Log, "parent", s.handle)
		<-ctx.Done()
	}
	s.queue.ShutDown()
	running.Wait()
	return nil
}

// lookEvery is how often a kind is looked for that the API server does not have.
const lookEvery = 10 * time.Second

// watchKind follows the parents of a kind, as soon as the API server has it.
func (s *Shim) watchKind(ctx context.Context, k *shimKind) {
	for !s.has(ctx, k) {
		if !k.absent.Swap(true) {
			s.Log.Info("shim: the API server does not have this kind; it is looked for again", "kind", k.Kind, "group", k.Group)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
	k.absent.Store(false)
	watch(ctx, k.client(s.Client), k.resource, "", all, k.object, k.parents)
}

// has tells whether the API server has a kind. One that cannot be asked is taken to have
// it: the watch says what is wrong.
func (s *Shim) has(ctx context.Context, k *shimKind) bool {
	if k.Group == networkingv1.GroupName {
		return true
	}
	list := &metav1.APIResourceList{}
	if err := s.Client.JSON.Get().AbsPath("/apis", k.Group, k.Version).Do(ctx).Into(list); err != nil {
		return !apierrors.IsNotFound(err)
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == k.resource })
}

// turn is a look at a parent.
type turn struct {
	*shim.Parent
	warnings []string
	// again says that what is there is another's, whose removal no watch of ours tells of.
	again bool
}

func (u *turn) warn(message string) { u.warnings = append(u.warnings, message) }

// againAfter is when a Certificate of another is looked at again.
const againAfter = time.Minute

// handle brings the Certificates of a parent to what it wants.
func (s *Shim) handle(ctx context.Context, key parentKey) error {
	p, _ := s.ofKind[key.kind].parents.get(key.NamespacedName)
	if p == nil {
		s.say(key, nil)
		return nil
	}
	u := &turn{Parent: p}
	if err := s.follow(ctx, u); err != nil {
		return err
	}
	s.say(key, u)
	if u.again {
		s.queue.AddAfter(key, againAfter)
	}
	return nil
}

func (s *Shim) follow(ctx context.Context, u *turn) error {
	plan, err := s.Defaults.Plan(u.Parent, s.madeOf(u.Parent))
	if err != nil {
		u.warn(err.Error())
		return nil
	}
	for _, problem := range plan.Skipped {
		u.warn("Skipped a " + blockName(u.Parent) + ": " + problem)
	}
	for _, step := range []struct {
		of []*cmapi.Certificate
		do func(context.Context, *turn, *cmapi.Certificate) error
	}{{plan.Create, s.create}, {plan.Update, s.update}, {plan.Delete, s.remove}} {
		for _, c := range step.of {
			if err := step.do(ctx, u, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func blockName(p *shim.Parent) string {
	if p.Kind == shim.Ingress {
		return "TLS block"
	}
	return "listener block"
}

// madeOf are the Certificates that a parent controls.
func (s *Shim) madeOf(p *shim.Parent) []*cmapi.Certificate {
	s.made.mu.RLock()
	defer s.made.mu.RUnlock()
	var found []*cmapi.Certificate
	for _, name := range s.byUID[p.UID] {
		if c := s.made.all[types.NamespacedName{Namespace: p.Namespace, Name: name}].value; c != nil && p.Owns(c) {
			found = append(found, c)
		}
	}
	return found
}

func (s *Shim) tell(p *shim.Parent, warning bool, reason, message string) {
	o := object{apiVersion: p.Kind.GroupVersion().String(), kind: p.Kind.Kind, namespace: p.Namespace, name: p.Name, uid: p.UID}
	s.Events.Tell(o, warning, reason, message)
}

// say tells of what is wrong with a parent, which only a person can mend, once.
func (s *Shim) say(key parentKey, u *turn) {
	s.mu.Lock()
	before := s.said[key]
	if u == nil || len(u.warnings) == 0 {
		delete(s.said, key)
	} else {
		s.said[key] = u.warnings
	}
	s.mu.Unlock()
	if u == nil {
		return
	}
	for _, message := range u.warnings {
		if !slices.Contains(before, message) {
			s.tell(u.Parent, true, "BadConfig", message)
			s.Log.Warn("shim: no certificate is made", "parent", key.String(), "reason", message)
		}
	}
}
