package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/lab"
)

// Stream is requests of one kind, made one after another.
type Stream struct {
	// Name of the kind of request; where each node has a stream of the kind,
	// KIND/NODE.
	Name string
	// Link is the number, of docs/links.md, of the link that the requests prove.
	Link int
	// Every is from the start of one request to the start of the next. A request
	// that takes longer delays the next: there are never two at once.
	Every time.Duration
	// Do makes one request; its error is a failure. It should end with its
	// context, which ends after Options.Timeout.
	Do func(ctx context.Context) error
	// Close gives up what the stream holds, after the last request. Nil: nothing.
	Close func()
}

// kind is the stream's name without a node.
func (s *Stream) kind() string {
	kind, _, _ := strings.Cut(s.Name, "/")
	return kind
}

// Failure is one request that failed.
type Failure struct {
	Time    time.Time `json:"time"` // when it had failed, not when it began
	Stream  string    `json:"stream"`
	Link    int       `json:"link"`
	Seconds float64   `json:"seconds"` // that the request took
	Error   string    `json:"error"`   // one line, with nothing secret in it
}

// errorLimit is how long the text of an error may be, in bytes.
const errorLimit = 400

// oneLine is an error's text as a user may see it.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(lab.Redact(err.Error()+answer(err))), " ")
	if len(text) > errorLimit {
		text = strings.ToValidUTF8(text[:errorLimit], "") + "…"
	}
	return text
}

// answer is the code of the API server's answer where client-go has dropped the
// rest of it: of a raw request it calls everything but plain text "unknown"
// (DoRaw in k/client-go rest/request.go).
func answer(err error) string {
	var status apierrors.APIStatus
	if !strings.HasPrefix(err.Error(), "unknown") || !errors.As(err, &status) {
		return ""
	}
	return fmt.Sprintf(" (HTTP %d)", status.Status().Code)
}
