package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// refused is what is left: servers that refuse everybody, callers that are
// refused for another reason, and those that are taken for somebody else.
func refused(c *Case) []Finding {
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome == trust.Refused {
			f := Finding{Cause: where(o) + " " + o.Reason, Fix: takeUpRefusal(o)}
			out = append(out, c.withBreaks(f.at(o.Server.Settings...), func(b Break) bool { return b.seen == o }))
			continue
		}
		out = append(out, c.refusedCallers(o)...)
	}
	return out
}

// refusedCallers are those whom one server does not let in, or takes for others,
// in one finding for each reason.
func (c *Case) refusedCallers(o *trust.Observation) []Finding {
	var out []Finding
	index := map[string]int{}
	for at, b := range c.Breaks {
		if b.seen != o || b.call == nil || b.call.Outcome == trust.Unreachable || c.distrusts(o, b) {
			continue
		}
		reason := b.call.Reason
		if b.call.Outcome == trust.Answered {
			reason = "it takes the caller for " + spoken(b.call)
		}
		who := b.call.Credential.Certificate
		i, known := index[reason]
		if !known {
			i = len(out)
			index[reason] = i
			f := Finding{Cause: fmt.Sprintf("%s refuses %s: %s", where(o), named(who), reason), Fix: "see its log for the reason; compare the clocks of both machines"}
			if b.call.Outcome == trust.Answered {
				f.ID = "identity-wrong"
				f.Cause = fmt.Sprintf("%s takes %s for %s", where(o), named(who), spoken(b.call))
				f.Fix = "see what stands between: something ends TLS before the apiserver, or its authentication is configured otherwise (--authentication-config)"
			}
			out = append(out, f.at(who))
		}
		if !slices.Contains(out[i].places, who) {
			// It is the server's doing, not that of one caller.
			out[i] = out[i].at(slices.Concat([]trust.Place{settingOf(o)}, out[i].places, []trust.Place{who})...)
			if !strings.HasSuffix(out[i].Cause, "; and others") {
				out[i].Cause += "; and others"
			}
		}
		out[i].breaks = append(out[i].breaks, at)
	}
	return out
}

// spoken is who a server says that a caller is.
func spoken(call *trust.Call) string {
	if len(call.Groups) == 0 {
		return call.User
	}
	return call.User + " of " + strings.Join(call.Groups, ", ")
}
