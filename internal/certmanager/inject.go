package certmanager

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/kubepki/kubepki/internal/cainjector"
)

// injectWorkers are how many objects are in work at the same time: there are some tens of
// them in a cluster.
const injectWorkers = 4

// InjectorOptions are the settings of [Injector].
type InjectorOptions struct {
	Client *Client
	// APIServerCA reads the authority of the API server, in PEM; it is asked each minute.
	APIServerCA func() ([]byte, error)
	// Replace has a bundle hold what the source holds, and nothing of what was before.
	Replace bool
	Log     *slog.Logger
	Metrics *InjectMetrics
}

// Injector writes the caBundles of annotated objects. Of the objects it watches metadata;
// an annotated one is read when it or its source has changed. Sources are watched by name,
// as metadata too, so that no key is sent.
type Injector struct {
	InjectorOptions
	kinds map[string]*cainjector.Kind // by resource
	all   map[string]*store[injectable]
	queue workqueue.TypedRateLimitingInterface[injectKey]
	named *namedWatches[injectKey]

	mu      sync.Mutex
	blocked map[injectKey]string // why a bundle is not written
	ca      string               // the API server's, as it was last seen
}

// injectKey names an object.
type injectKey struct{ resource, name string }

func (k injectKey) String() string { return k.resource + "/" + k.name }

// injectable is what is kept of an annotated object.
type injectable struct {
	source cainjector.Source
	bad    string // what is wrong with the annotation
}

// NewInjector makes an injector.
func NewInjector(o InjectorOptions) *Injector {
	i := &Injector{
		InjectorOptions: o, kinds: map[string]*cainjector.Kind{}, all: map[string]*store[injectable]{},
		queue: newQueue[injectKey](), blocked: map[injectKey]string{},
	}
	i.named = newNamedWatches(o.Client.Metadata, i.queue.Add)
	for _, k := range cainjector.Kinds() {
		s := newStore(reduceInjectable)
		s.told = func(key types.NamespacedName, before, after *injectable) {
			if before != nil || after != nil {
				i.queue.Add(injectKey{k.Resource, key.Name})
			}
		}
		i.kinds[k.Resource], i.all[k.Resource] = k, s
	}
	return i
}

// reduceInjectable keeps of an object where its bundle comes from; nil: it wants none.
func reduceInjectable(o any) (*injectable, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("a watch of metadata gave a %T", o)
	}
	source, err := cainjector.SourceOf(m.Annotations)
	switch {
	case m.DeletionTimestamp != nil:
		return nil, nil
	case source.From == cainjector.Nothing:
		return nil, nil
	}
	in := &injectable{source: source}
	if err != nil {
		in.bad = err.Error()
	}
	return in, nil
}

// Synced tells whether all that there is has been seen.
func (i *Injector) Synced() bool {
	for _, s := range i.all {
		if !s.isSynced() {
			return false
		}
	}
	return true
}

// Run works until the context ends, and finishes what it has begun.
func (i *Injector) Run(ctx context.Context) error {
	var running sync.WaitGroup
	i.named.start(ctx)
	for resource, s := range i.all {
		k := i.kinds[resource]
		running.Go(func() {
			watchMetadata(ctx, i.Client.Metadata, schema.GroupVersionResource{Group: k.Group, Version: k.Version, Resource: resource}, "", all, s)
		})
	}
	running.Go(func() { i.followAPIServer(ctx) })
	work(ctx, &running, injectWorkers, i.queue, i.Log, "caBundle", i.handle)
	<-ctx.Done()
	i.queue.ShutDown()
	running.Wait()
	i.named.wait()
	return nil
}

// apiServerEvery is how often the API server's authority is read.
const apiServerEvery = time.Minute

// followAPIServer looks again at the objects that hold the API server's authority when it
// has changed.
func (i *Injector) followAPIServer(ctx context.Context) {
	tick := time.NewTicker(apiServerEvery)
	defer tick.Stop()
	for {
		ca, err := i.APIServerCA()
		i.mu.Lock()
		changed := err == nil && i.ca != string(ca)
		if changed {
			i.ca = string(ca)
		}
		i.mu.Unlock()
		if changed {
			i.wake(func(in *injectable) bool { return in.source.From == cainjector.APIServer })
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (i *Injector) wake(which func(*injectable) bool) {
	for resource, s := range i.all {
		for key, k := range s.each() {
			if which(k.value) {
				i.queue.Add(injectKey{resource, key.Name})
			}
		}
	}
}

// errLeft wraps the reason for which a caBundle is left as it is until something changes.
var errLeft = errors.New("left as it is")

func left(format string, a ...any) error {
	return fmt.Errorf("%w: %w", errLeft, fmt.Errorf(format, a...))
}

// handle writes the bundles of an object where they are not right.
func (i *Injector) handle(ctx context.Context, key injectKey) error {
	in, _ := i.all[key.resource].get(types.NamespacedName{Name: key.name})
	if in == nil {
		i.named.set(key, nil)
		i.say(key, nil)
		return nil
	}
	err := i.inject(ctx, key, in)
	if errors.Is(err, errLeft) {
		i.say(key, err)
		return nil
	}
	if err == nil {
		i.say(key, nil)
	}
	return err
}

func (i *Injector) inject(ctx context.Context, key injectKey, in *injectable) error {
	if in.bad != "" {
		i.named.set(key, nil)
		return left("%s", in.bad)
	}
	ca, err := i.read(ctx, key, in.source)
	if err != nil {
		return err
	}
	given, err := cainjector.Given(ca, now())
	if err != nil {
		return left("%s: ca.crt: %w", in.source, err)
	}
	return i.write(ctx, key, in.source, given)
}

// read returns the text that a source has.
func (i *Injector) read(ctx context.Context, key injectKey, source cainjector.Source) ([]byte, error) {
	if source.From == cainjector.APIServer {
		i.named.set(key, nil)
		ca, err := i.APIServerCA()
		if err != nil {
			return nil, left("reading %s: %w", source, err)
		}
		return ca, nil
	}
	name := source.Name
	if source.From == cainjector.Certificate {
		// Watched before it is read, so that no change goes by.
		i.named.want(key, watched{certificateResource, source.Name})
		c := &cmapi.Certificate{}
		err := i.Client.CM.Get().Namespace(name.Namespace).Resource(certificates).Name(name.Name).Do(ctx).Into(c)
		if apierrors.IsNotFound(err) {
			return nil, left("%s is not there", source)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", source, err)
		}
		name.Name = c.Spec.SecretName
		i.named.set(key, []watched{{certificateResource, source.Name}, {secretResource, name}})
	} else {
		i.named.set(key, []watched{{secretResource, name}})
	}
	secret, err := i.Client.Kube.CoreV1().Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, left("Secret %s is not there", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	ca, err := source.Take(secret)
	if err != nil {
		return nil, left("%w", err)
	}
	return ca, nil
}

// write applies the bundles of an object, if one is not right.
func (i *Injector) write(ctx context.Context, key injectKey, source cainjector.Source, given []*x509.Certificate) error {
	kind := i.kinds[key.resource]
	object, err := i.Client.JSON.Get().AbsPath(kind.Path(), key.name).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return nil // the watch will tell of it
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", key, err)
	}
	if !stillFrom(object, source) {
		return nil // the watch will tell of that too
	}
	patch, err := kind.Patch(object, func(there []byte) []byte { return cainjector.Bundle(there, given, !i.Replace, now()) })
	if err != nil {
		return left("%w", err)
	}
	if patch == nil {
		return nil
	}
	err = i.Client.JSON.Patch(types.ApplyYAMLPatchType).AbsPath(kind.Path(), key.name).
		Param("fieldManager", cainjector.FieldManager).Param("force", "true").Body(patch).Do(ctx).Error()
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return err // it has changed meanwhile
	case apierrors.IsInvalid(err):
		return left("the API server refuses it: %w", err)
	case err != nil:
		return fmt.Errorf("writing %s: %w", key, err)
	}
	i.Metrics.wrote(kind.Kind)
	i.Log.Info("cainjector: a bundle was written", "object", key.String(), "from", source.String(), "certificates", len(given))
	return nil
}

// stillFrom tells whether an object, as it was read now, names a source. What is applied
// names the version that was read, so that nobody is written to who has said no.
func stillFrom(object []byte, source cainjector.Source) bool {
	var m metav1.PartialObjectMetadata
	if json.Unmarshal(object, &m) != nil {
		return true // what is wrong with it is said by who reads all of it
	}
	now, err := cainjector.SourceOf(m.Annotations)
	return err == nil && now == source
}

// say takes note of why a bundle is left as it is, nil for one that is right, and logs it
// once.
func (i *Injector) say(key injectKey, why error) {
	i.mu.Lock()
	before := i.blocked[key]
	if why == nil {
		delete(i.blocked, key)
	} else {
		i.blocked[key] = why.Error()
	}
	i.mu.Unlock()
	if why != nil && before != why.Error() {
		i.Log.Warn("cainjector: a bundle is not written", "object", key.String(), "reason", why.Error())
	}
}

// Blocked are the objects whose bundles are left as they are, and why.
func (i *Injector) Blocked() map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string]string{}
	for key, why := range i.blocked {
		out[key.String()] = why
	}
	return out
}
