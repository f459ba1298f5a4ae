package kubesource

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/mtls"
)

// part is the certificate or the bundle: the last that was good, and what is
// wrong with what is there.
type part[T any] struct {
	object string
	keys   []string // of the objects' content
	make   func([]content) (T, error)

	seen   []content // of what is there
	found  bool
	value  T
	status mtls.Status
	bad    error // why what is there was refused; nil: it was not
	away   error // why the API server could not be asked; nil: it could
}

// changing is a part of any type. Each method returns what is to be told, nil for
// nothing.
type changing interface {
	take([]content) *Change
	lost(error) *Change
	alive() *Change
}

// take makes the part anew of what is there now.
func (p *part[T]) take(all []content) *Change {
	mine := make([]content, 0, len(all))
	for _, c := range all {
		mine = append(mine, content{c.name, pick(c.data, p.keys...)})
	}
	if p.seen != nil && reflect.DeepEqual(mine, p.seen) {
		return p.alive() // another key has changed
	}
	p.seen, p.away = mine, nil
	value, err := p.make(mine)
	if err != nil {
		before := p.bad
		p.bad, p.status.Failing = fmt.Errorf("%s: %w", p.object, err), true
		if before != nil && before.Error() == p.bad.Error() {
			return nil
		}
		p.status.Refused++
		return &Change{p.object, p.bad}
	}
	p.value, p.found, p.bad = value, true, nil
	p.status.Taken++
	p.status.Failing, p.status.AsOf = false, time.Now()
	return &Change{Object: p.object}
}

// lost notes that the API server could not be asked, and tells it once for each
// kind of reason: the texts of connections that fail differ in their ports.
func (p *part[T]) lost(err error) *Change {
	before := p.away
	p.away = fmt.Errorf("%s: the API server could not be asked: %w", p.object, err)
	if before != nil && apierrors.ReasonForError(before) == apierrors.ReasonForError(err) {
		return nil
	}
	return &Change{p.object, p.away}
}

// alive notes that what is there is what was seen last.
func (p *part[T]) alive() *Change {
	if p.bad == nil && p.found {
		p.status.AsOf = time.Now()
	}
	if p.away == nil {
		return nil
	}
	p.away = nil
	return &Change{p.object, p.bad}
}

// missing is why there is no value yet.
func (p *part[T]) missing() error {
	switch {
	case p.bad != nil:
		return p.bad
	case p.away != nil:
		return p.away
	}
	return errors.New(p.object + ": has not been seen yet")
}
