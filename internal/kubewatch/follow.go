package kubewatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubepki/kubepki/internal/resident"
)

// How lists and watches are asked for.
const (
	pageSize     = 100     // objects in one answer; fewer where they are large
	mostInPage   = 8 << 20 // bytes of an answer above which fewer are asked for
	mostInObject = 32 << 20
	listTimeout  = time.Minute
	watchLeast   = 5 * time.Minute // a watch ends after one to two times this, as those of client-go
)

// How long is waited after something went wrong: twice as long each time.
const (
	firstWait     = time.Second
	longestWait   = time.Minute
	forbiddenWait = 5 * time.Minute
)

// answerError is an answer other than 200.
type answerError struct {
	code    int
	message string
}

// Error says what the API server says, shortened.
func (e *answerError) Error() string {
	text := strconv.Itoa(e.code) + " " + http.StatusText(e.code)
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

func hasCode(err error, code int) bool {
	var answer *answerError
	return errors.As(err, &answer) && answer.code == code
}

// errLarge tells of an answer that is larger than was hoped.
var errLarge = errors.New("the answer is too large")

// follow lists and watches until the context ends.
func (w *Watch) follow(ctx context.Context, q *query) {
	wait := firstWait
	version := "" // "": to be listed
	for ctx.Err() == nil {
		var err error
		if version == "" {
			if version, err = w.list(ctx, q); err == nil {
				wait = firstWait
				w.up(q)
				w.o.Changed()
			}
		}
		if err == nil {
			started := time.Now()
			version, err = w.watch(ctx, q, version)
			if time.Since(started) > longestWait {
				wait = firstWait
			}
		}
		if ctx.Err() != nil {
			return
		}
		longest := longestWait
		if err != nil {
			longest = w.failed(q, err)
			pause(ctx, wait)
		} else {
			pause(ctx, wait/4) // a server may end each watch at once
		}
		wait = min(2*wait, longest)
	}
}

// up notes that it goes well, and says so where it did not.
func (w *Watch) up(q *query) {
	if q.up() {
		w.o.Log.Info("certificates of the cluster are followed again", "what", q.source.Name)
	}
}

// failed notes what went wrong, says so once, and returns how long to wait at most.
func (w *Watch) failed(q *query, err error) (longest time.Duration) {
	code, reason, longest := "unreachable", err.Error(), longestWait
	var answer *answerError
	if errors.As(err, &answer) {
		code = "http_" + strconv.Itoa(answer.code)
		if answer.code == http.StatusTooManyRequests {
			code = "rate_limited"
		}
	} else if errors.Is(err, errMessage) || errors.Is(err, errLarge) {
		code = "bad_answer"
	}
	switch {
	case hasCode(err, http.StatusForbidden):
		// An API server that starts refuses too what it will grant when it knows the roles.
		reason, longest = "it may not "+q.needs+": deploy/agent-cluster-rbac.yaml grants it", forbiddenWait
	case hasCode(err, http.StatusNotFound): // an API server without this group, or one that starts
		longest = forbiddenWait
	case hasCode(err, http.StatusUnauthorized):
		reason = "the API server does not know the credential of the kubeconfig (401 Unauthorized)"
	}
	if q.down(code, reason) {
		w.o.Log.Warn("certificates of the cluster are not followed", "what", q.source.Name, "reason", reason)
	}
	return longest
}

// pause waits for up to half as long again, so that many agents do not come back at
// once.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d + rand.N(d/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// list reads all objects, page after page, and returns the version to watch from.
func (w *Watch) list(ctx context.Context, q *query) (version string, err error) {
	defer resident.Work()()
	b := &buffer{}
	defer b.wipe()
	q.begin()
	params, limit := cloned(q.selector), pageSize
	for {
		params.Set("limit", strconv.Itoa(limit))
		next, version, err := w.page(ctx, q, params, b, limit > 1)
		switch {
		case errors.Is(err, errLarge) && limit > 1:
			limit = max(1, limit/4)
			continue
		case err != nil:
			return "", err // 410 too: to go on from another version would miss what changed between the two
		case next == "":
			q.end()
			return version, nil
		}
		params.Set("continue", next)
	}
}

func cloned(v url.Values) url.Values {
	c := url.Values{}
	for name, values := range v {
		c[name] = slices.Clone(values)
	}
	return c
}

// page reads one page of a list.
func (w *Watch) page(ctx context.Context, q *query, params url.Values, b *buffer, small bool) (next, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	body, err := w.ask(ctx, q.path, params, "application/vnd.kubernetes.protobuf")
	if err != nil {
		return "", "", err
	}
	defer func() { _ = body.Close() }()
	defer b.wipe()
	most := mostInObject
	if small {
		most = mostInPage
	}
	if err := b.readAll(body, most); err != nil {
		return "", "", plain(err)
	}
	list, err := unwrap(b.data)
	if err != nil {
		return "", "", err
	}
	meta, err := at(list, fieldMetadata)
	if err != nil {
		return "", "", err
	}
	var first error
	if err := each(list, func(n protowire.Number, message []byte) {
		if n == fieldItems && first == nil {
			first = q.take(message, false)
		}
	}); err != nil {
		return "", "", err
	}
	v, err := at(meta, listVersion)
	c, err2 := at(meta, listContinue)
	return string(c), string(v), errors.Join(first, err, err2)
}

// take keeps an object, or forgets it.
func (q *query) take(message []byte, gone bool) error {
	i, err := newItem(message)
	if err != nil {
		return err
	}
	id := key(q.resource, i)
	if gone || slices.Contains(q.excluded, i.namespace) && i.namespace != "" {
		q.remove(id)
		return nil
	}
	o, err := read(message, q.values)
	if err != nil {
		return err
	}
	if len(o.certificates) == 0 && len(o.faults) == 0 && q.kind != "kube-secret" {
		q.remove(id) // most APIServices and CustomResourceDefinitions hold none
		return nil
	}
	o.uid = i.uid
	q.put(id, o)
	return nil
}

// watch follows changes from a version on. It returns the version that it came to, ""
// when all has to be listed again; no error means that the watch ended as it should.
func (w *Watch) watch(ctx context.Context, q *query, version string) (now string, err error) {
	life := watchLeast + rand.N(watchLeast)
	ctx, cancel := context.WithTimeout(ctx, life+headerTimeout)
	defer cancel()
	params := cloned(q.selector)
	params.Set("watch", "true")
	params.Set("allowWatchBookmarks", "true")
	params.Set("resourceVersion", version)
	params.Set("timeoutSeconds", strconv.Itoa(int(life.Seconds())))
	body, err := w.ask(ctx, q.path, params, "application/vnd.kubernetes.protobuf;stream=watch")
	if hasCode(err, http.StatusGone) {
		return "", nil
	}
	if err != nil {
		return version, err
	}
	defer func() { _ = body.Close() }()
	w.up(q)
	b := &buffer{}
	defer b.wipe()
	for {
		if err := b.readFrame(body); err != nil {
			if errors.Is(err, io.EOF) {
				return version, nil
			}
			return version, plain(err)
		}
		v, err := w.event(q, b.data)
		b.wipe()
		switch {
		case hasCode(err, http.StatusGone):
			return "", nil
		case err != nil:
			return "", err // what was missed is not known
		}
		if v != "" {
			version = v
		}
	}
}

// event takes one event of a watch, and returns the version after it.
func (w *Watch) event(q *query, frame []byte) (version string, err error) {
	kind, err := at(frame, eventType)
	if err != nil {
		return "", err
	}
	raw, err := at(frame, eventObject, 1)
	if err != nil {
		return "", err
	}
	message, err := unwrap(raw)
	if err != nil {
		return "", err
	}
	switch string(kind) {
	case "ERROR":
		return "", readStatus(message)
	case "ADDED", "MODIFIED", "DELETED":
		if err := q.take(message, string(kind) == "DELETED"); err != nil {
			return "", err
		}
		w.o.Changed()
	case "BOOKMARK":
	default:
		return "", errMessage
	}
	i, err := newItem(message)
	return i.version, err
}

// ask sends a GET, and returns the body of an answer that is what was asked for.
func (w *Watch) ask(ctx context.Context, path string, params url.Values, accept string) (io.ReadCloser, error) {
	u := *w.base
	u.Path, u.RawPath, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, "", params.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", accept)
	response, err := w.client.Do(request)
	if err != nil {
		return nil, plain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer func() { _ = response.Body.Close() }()
	const most = 64 << 10
	data, _ := io.ReadAll(io.LimitReader(response.Body, most)) // the code is known all the same
	e := &answerError{code: response.StatusCode}
	if message, err := unwrap(data); err == nil {
		var said *answerError
		if errors.As(readStatus(message), &said) {
			e.message = said.message
		}
	}
	return nil, e
}

// readStatus reads a metav1.Status.
func readStatus(message []byte) error {
	e := &answerError{code: int(number(message, statusCode))}
	text, err := at(message, statusMessage)
	if err != nil {
		return err
	}
	e.message = shortened(string(text))
	return e
}

// shortened cuts what others wrote to what a line can hold.
func shortened(text string) string {
	const most = 300
	text = strings.ToValidUTF8(text, "?")
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// plain takes the URL out of an error.
func plain(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the API server does not answer in time")
	}
	return err
}

// buffer holds one answer, or one event of a watch. What was in it is overwritten
// before it holds another, and before it grows.
type buffer struct {
	data  []byte
	whole []byte
}

// wipe overwrites what is held. A buffer that was large is given up.
func (b *buffer) wipe() {
	clear(b.whole)
	b.data = nil
	const kept = 1 << 20
	if len(b.whole) > kept {
		b.whole = nil
	}
}

// grow makes room for n bytes, with the first ones kept.
func (b *buffer) grow(n, kept int) {
	if n <= len(b.whole) {
		return
	}
	larger := make([]byte, max(n, 2*len(b.whole), 16<<10))
	copy(larger, b.whole[:kept])
	clear(b.whole)
	b.whole = larger
}

// chunk is how much is read at a time.
const chunk = 32 << 10

// readAll reads an answer of at most so many bytes.
func (b *buffer) readAll(from io.Reader, most int) error {
	n := 0
	for {
		if n > most {
			return errLarge
		}
		b.grow(n+chunk, n)
		read, err := from.Read(b.whole[n : n+chunk])
		n += read
		if errors.Is(err, io.EOF) {
			b.data = b.whole[:n]
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readFrame reads an event, which its length in four bytes comes before
// (apimachinery/pkg/util/framer). io.EOF means that none comes any more.
func (b *buffer) readFrame(from io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > mostInObject {
		return fmt.Errorf("an event of %d bytes: %w", size, errLarge)
	}
	for n := 0; n < int(size); {
		b.grow(n+min(chunk, int(size)-n), n)
		read, err := from.Read(b.whole[n : n+min(chunk, int(size)-n)])
		if n += read; err != nil && n < int(size) {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	b.data = b.whole[:size]
	return nil
}
