package jwtsigner

import "fmt"

// What callers wrote is told up to here: bytes of a text, texts of a list.
const (
	maxText = 80
	maxList = 5
)

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

func clipAll(all []string) []string {
	var out []string
	for i, s := range all {
		if i == maxList {
			return append(out, fmt.Sprintf("%d more", len(all)-i))
		}
		out = append(out, clip(s))
	}
	return out
}
