// Package bearer is what the middleware of HTTP and of gRPC have in common.
package bearer

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/kubepki/kubepki/token"
)

// Token takes the token out of the values of an Authorization header (RFC 6750
// section 2.1). There must be one value: of two, this program and another could
// each take a different one.
func Token(authorization []string) (string, bool) {
	if len(authorization) != 1 {
		return "", false
	}
	scheme, text, _ := strings.Cut(authorization[0], " ")
	text = strings.Trim(text, " ")
	return text, strings.EqualFold(scheme, "Bearer") && text != ""
}

// Log tells the log why a token was not accepted, and the caller whether it was
// refused: otherwise the keys could not be had. The logger may be nil.
func Log(ctx context.Context, log *slog.Logger, err error, where slog.Attr) (refused bool) {
	if log == nil {
		log = slog.Default()
	}
	var r *token.RefusedError
	if !errors.As(err, &r) && ctx.Err() != nil {
		log.LogAttrs(ctx, slog.LevelDebug, "token not judged: who asked is gone", where)
		return false
	}
	if !errors.As(err, &r) {
		log.LogAttrs(ctx, slog.LevelError, "token not judged", slog.String("error", err.Error()), where)
		return false
	}
	log.LogAttrs(ctx, slog.LevelInfo, "token refused", slog.String("reason", string(r.Reasons[0].ID)), slog.String("detail", r.Error()), where)
	return true
}
