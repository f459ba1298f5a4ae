package report

import (
	"fmt"
	"strings"
	"time"
)

// Left says in words how long a validity lasts from a time on: "364d", "5h",
// "expired 3d ago", "starts in 2h".
func Left(notBefore, notAfter, at time.Time) string {
	switch {
	case at.After(notAfter):
		return "expired " + roughly(at.Sub(notAfter)) + " ago"
	case at.Before(notBefore):
		return "starts in " + roughly(notBefore.Sub(at))
	}
	return roughly(notAfter.Sub(at))
}

// roughly rounds a duration down to the unit that people would use.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// left colours what [Left] says: red what does not work, yellow what ends soon.
func (p Palette) left(notBefore, notAfter, at time.Time) string {
	text := Left(notBefore, notAfter, at)
	if strings.Contains(text, " ") {
		return p.Red(text)
	}
	return text
}

// Plain makes text from a foreign file fit for a terminal: control characters
// could move the cursor or colour what follows, and the marks of writing
// direction could let a name look like another.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || unseen(r) {
			return '?'
		}
		return r
	}, text)
}

// unseen tells of characters that cannot be seen, but for those that JSON escapes
// by itself.
func unseen(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}
