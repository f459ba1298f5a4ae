package agent

import (
	"context"
	"log/slog"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
)

// known is what was told of already.
type known struct {
	told     bool
	findings map[findingKey]string // its cause
	broken   int
}

// findingKey is by what a finding is known again. Its cause may count days.
type findingKey struct{ id, node, path, field string }

// maxTold bounds the lines of one look: a folder with ten thousand certificates may
// expire at once.
const maxTold = 50

// compare logs what has changed between two looks, and the whole verdict once.
func (k *known) compare(log *slog.Logger, v *Verified) {
	now := map[findingKey]string{}
	var appeared []check.Finding
	for _, f := range v.Findings {
		key := findingKey{f.ID, f.Node, f.Path, f.Field}
		if _, twice := now[key]; twice {
			continue
		}
		now[key] = f.Cause
		if _, before := k.findings[key]; !before {
			appeared = append(appeared, f)
		}
	}
	for i, f := range appeared {
		if i == maxTold {
			log.Warn("more findings", "left", len(appeared)-i, "hint", "kubepki verify lists them")
			break
		}
		log.Log(context.Background(), level(f.Severity), "finding", findingAttributes(f)...)
	}
	gone := 0
	for key, cause := range k.findings {
		if _, still := now[key]; !still {
			if gone++; gone <= maxTold {
				log.Info("finding gone", "id", key.id, "node", key.node, "path", key.path, "was", cause)
			}
		}
	}
	broken := brokenLinks(&v.Verification)
	if !k.told || broken != k.broken || len(appeared) > 0 || gone > 0 {
		log.Info("verified", "healthy", v.Healthy, "links", len(v.Links), "broken", broken, "findings", len(v.Findings), "certificates", len(v.Certificates))
	}
	k.told, k.findings, k.broken = true, now, broken
}

func findingAttributes(f check.Finding) []any {
	all := []any{"id", f.ID}
	for _, a := range [][2]string{{"node", f.Node}, {"path", f.Path}, {"field", f.Field}, {"cause", f.Cause}, {"fix", f.Fix}} {
		if a[1] != "" {
			all = append(all, a[0], a[1])
		}
	}
	return all
}

func level(s check.Severity) slog.Level {
	switch s {
	case check.Error:
		return slog.LevelError
	case check.Warning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func brokenLinks(v *report.Verification) int {
	n := 0
	for _, l := range v.Links {
		if !l.OK {
			n++
		}
	}
	return n
}
