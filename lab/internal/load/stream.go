package load

import (
	"context"
	"strings"
	"time"

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
	text := strings.Join(strings.Fields(lab.Redact(err.Error())), " ")
	if len(text) > errorLimit {
		text = strings.ToValidUTF8(text[:errorLimit], "") + "…"
	}
	return text
}
