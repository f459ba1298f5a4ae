package certmanager

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWhatTheAPIServerWillNotTake(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for _, row := range []struct {
		name string
		err  error
		want bool
	}{
		{"a quota", apierrors.NewForbidden(secrets, "web", errors.New("exceeded quota: none, requested: secrets=1")), true},
		{"an object that cannot be", apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "web", nil), true},
		{"a webhook", apierrors.NewBadRequest("admission webhook denied the request"), true},
		{"more than etcd takes", apierrors.NewRequestEntityTooLargeError("limit is 3145728"), true},
		{"a conflict", apierrors.NewConflict(secrets, "web", errors.New("x")), false},
		{"too many requests", apierrors.NewTooManyRequests("x", 1), false},
		{"a token that has ended", apierrors.NewUnauthorized("x"), false},
		{"a namespace that is gone", apierrors.NewNotFound(secrets, "web"), false},
		{"a server in trouble", apierrors.NewInternalError(errors.New("x")), false},
		{"no answer", errors.New("connection refused"), false},
		{"no error", nil, false},
	} {
		err := row.err
		if err != nil {
			err = fmt.Errorf("writing: %w", err)
		}
		message, got := refused(err)
		if got != row.want || got && message == "" || strings.Contains(message, "\n") {
			t.Errorf("%s: %t %q", row.name, got, message)
		}
	}
	if message, _ := refused(apierrors.NewBadRequest(strings.Repeat("x\n", 5000))); len(message) > maxMessage+len("…") {
		t.Errorf("%d bytes are repeated", len(message))
	}
}
