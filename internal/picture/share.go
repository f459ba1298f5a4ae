package picture

import "github.com/kubepki/kubepki/internal/check"

// PageStyle is the style sheet of pages with findings and tables, in the colours of
// pictures, for light and dark, screens of any width and paper.
func PageStyle() string { return style + pageStyle }

// PolicySource is the source of a Content-Security-Policy that lets one text in.
func PolicySource(text string) string { return "'" + hash(text) + "'" }

// FindingHead is how a finding is headed: its severity with a sign, its id and links.
func FindingHead(f *check.Finding) string { return findingHead(f) }

// Clip makes a foreign text fit for a page: nothing that moves the cursor or turns the
// direction of writing, and no more than max characters.
func Clip(text string, max int) string { return clip(text, max) }
