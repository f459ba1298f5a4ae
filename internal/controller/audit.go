package controller

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/trust"
)

// longUndecided is after what time an Event tells that a request waits.
const longUndecided = 10 * time.Minute

// audit writes the line of a decision.
func (c *CSR) audit(r csr.Request, review csr.Review, l leaf) {
	ids := reasonIDs(review)
	first, _, _ := strings.Cut(ids, ",")
	c.Metrics.decisions.WithLabelValues(r.SignerName, string(review.Verdict), first).Inc()
	level := slog.LevelInfo
	if review.Verdict == csr.Deny {
		level = slog.LevelWarn
	}
	attrs := append(requestAttrs(r), slog.String("verdict", string(review.Verdict)), slog.String("reasons", ids))
	if review.Verdict != csr.Approve {
		attrs = append(attrs, slog.String("why", reasonMessages(review)))
	}
	c.Log.LogAttrs(context.Background(), level, "decision", append(attrs, leafAttrs(l)...)...)
}

// noteUndecided writes a line when the reasons are others than the last time,
// and an Event once, when it has been so for long.
func (c *CSR) noteUndecided(it *item, r csr.Request, review csr.Review) {
	if ids := reasonIDs(review); it.reasons != ids || ids == "" {
		it.reasons = ids
		c.audit(r, review, leaf{})
	}
	if !it.reported && c.Events != nil && time.Since(it.made) >= longUndecided {
		it.reported = true
		c.Events.Undecided(it.name, it.uid)
	}
}

// issued writes the line of a certificate, or of a request that gets none.
func (c *CSR) issued(it *item, r csr.Request, s signature, never *csr.UnsignableError) {
	if never != nil {
		c.Log.LogAttrs(context.Background(), slog.LevelWarn, "never signed", append(requestAttrs(r), slog.String("why", never.Message))...)
		return
	}
	c.Metrics.issued.WithLabelValues(r.SignerName).Inc()
	c.Metrics.waited.WithLabelValues(r.SignerName).Observe(since(it.made))
	c.Metrics.worked.WithLabelValues(r.SignerName).Observe(since(it.seen))
	if c.Log.Enabled(context.Background(), slog.LevelDebug) || r.State == csr.Approved {
		// The line of the decision was written by another process, or by a person.
		c.Log.LogAttrs(context.Background(), slog.LevelInfo, "issued", append(requestAttrs(r), leafAttrs(s.leaf)...)...)
	}
}

func requestAttrs(r csr.Request) []slog.Attr {
	return append(make([]slog.Attr, 0, 10), slog.String("name", r.Name), slog.String("uid", r.UID),
		slog.String("signer", r.SignerName), slog.String("requester", r.Username))
}

func leafAttrs(l leaf) []slog.Attr {
	if l.serial == nil {
		return nil
	}
	return []slog.Attr{slog.String("serial", trust.SerialText(l.serial)), slog.Time("notAfter", l.notAfter)}
}

func reasonIDs(review csr.Review) string {
	ids := make([]string, len(review.Reasons))
	for i, r := range review.Reasons {
		ids[i] = r.ID
	}
	return strings.Join(ids, ",")
}

func reasonMessages(review csr.Review) string {
	messages := make([]string, len(review.Reasons))
	for i, r := range review.Reasons {
		messages[i] = r.Message
	}
	return strings.Join(messages, "; ")
}
