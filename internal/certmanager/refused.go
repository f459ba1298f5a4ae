package certmanager

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// refused tells whether the API server will give the same answer to the same write until
// somebody changes something: a quota, an admission webhook, a right that is missing, a
// namespace that is being removed, an object that cannot be. The message is the server's.
func refused(err error) (message string, ok bool) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return "", false
	}
	s := status.Status()
	switch s.Code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return "", false // of the moment, or something else is to be looked at again
	}
	if s.Code < http.StatusBadRequest || s.Code >= http.StatusInternalServerError {
		return "", false
	}
	return oneLine(s.Message), true
}

// notWritten is why a Secret is not written, and will not be before something changes.
type notWritten struct{ message string }

func (e *notWritten) Error() string { return e.message }

// maxMessage bounds what conditions and Events repeat of an answer.
const maxMessage = 512

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}
