package layout

import "strings"

// setting is one line of a unit file: "Name=Value" of a section.
type setting struct {
	section, name, value string
}

// parseUnit reads a unit file or a drop-in as systemd does (man systemd.syntax;
// systemd src/shared/conf-parser.c): a backslash at the end of a line joins it
// with the next, and stands for a space; comment lines between the two are
// passed over; what is neither section, setting nor comment is ignored.
//
// github.com/coreos/go-systemd/v22/unit refuses lines above 2048 bytes, which a
// kube-apiserver's often are, and keeps comments within a joined line.
func parseUnit(text string) []setting {
	var all []setting
	section, joined := "", ""
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if isUnitComment(line) {
			continue
		}
		joined += line
		if endsInBackslash(line) {
			joined = joined[:len(joined)-1] + " "
			continue
		}
		line, joined = strings.TrimSpace(joined), ""
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
		} else if name, value, ok := strings.Cut(line, "="); ok {
			all = append(all, setting{section, strings.TrimSpace(name), strings.TrimSpace(value)})
		}
	}
	if name, value, ok := strings.Cut(joined, "="); ok { // the file ends in a backslash
		all = append(all, setting{section, strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	return all
}

func isUnitComment(line string) bool {
	line = strings.TrimLeft(line, " \t")
	return strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
}

// endsInBackslash tells whether the last backslash is not escaped itself.
func endsInBackslash(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// unitWord is a word of a unit's setting.
type unitWord struct {
	text   string
	quoted bool // holds a part in quotes
}

// unitWords splits a value into words as systemd does (man systemd.syntax,
// "quoting"; extract_first_word in systemd src/basic/extract-word.c): quotes of
// both kinds, and C escapes within and outside of them.
func unitWords(value string) []unitWord {
	var words []unitWord
	var word strings.Builder
	in, quoted, quote := false, false, byte(0)
	end := func() {
		if in {
			words = append(words, unitWord{word.String(), quoted})
		}
		word.Reset()
		in, quoted = false, false
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && i+1 < len(value):
			in = true
			text, n := unescapeC(value[i+1:])
			word.WriteString(text)
			i += n
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			in, quoted, quote = true, true, c
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			end()
		default:
			in = true
			word.WriteByte(c)
		}
	}
	end()
	return words
}

// unescapeC reads what follows a backslash, and tells how many bytes that is.
// What is no escape keeps its backslash, as with EXTRACT_UNESCAPE_RELAX.
func unescapeC(s string) (string, int) {
	simple := map[byte]string{'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\\': `\`, '"': `"`, '\'': "'", 's': " "}
	if text, ok := simple[s[0]]; ok {
		return text, 1
	}
	number := func(digits string, base, from int) (string, int) {
		if len(s) < from+digitsOf(base) {
			return "", 0
		}
		n := 0
		for _, d := range []byte(strings.ToLower(s[from : from+digitsOf(base)])) {
			at := strings.IndexByte(digits[:base], d)
			if at < 0 {
				return "", 0
			}
			n = n*base + at
		}
		if n == 0 || n > 255 {
			return "", 0
		}
		return string([]byte{byte(n)}), from + digitsOf(base)
	}
	const digits = "0123456789abcdef"
	var text string
	var n int
	if s[0] == 'x' {
		text, n = number(digits, 16, 1)
	} else {
		text, n = number(digits, 8, 0)
	}
	if n == 0 {
		return `\`, 0
	}
	return text, n
}

func digitsOf(base int) int {
	if base == 16 {
		return 2
	}
	return 3
}

// parseEnvironment reads an EnvironmentFile= (man systemd.exec; parse_env_file
// in systemd src/basic/env-file.c) into its variables in order.
func parseEnvironment(text string) []variable {
	var all []variable
	for len(text) > 0 {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			break
		}
		if text[0] == '#' || text[0] == ';' {
			text = text[lineEnd(text):]
			continue
		}
		stop := strings.IndexAny(text, "=\n")
		if stop < 0 || text[stop] == '\n' {
			text = text[lineEnd(text):]
			continue
		}
		name := strings.TrimSpace(text[:stop])
		var value string
		value, text = environmentValue(text[stop+1:])
		if isVariableName(name) {
			all = append(all, variable{name, value})
		}
	}
	return all
}

type variable struct{ name, value string }

// lineEnd is where a comment ends: at a line's end that no backslash joins.
func lineEnd(text string) int {
	for i := 0; i < len(text); i++ {
		if text[i] == '\n' && (i == 0 || text[i-1] != '\\') {
			return i + 1
		}
	}
	return len(text)
}

// environmentValue reads a value, which may be quoted as a whole or in parts,
// and returns the text after it.
func environmentValue(s string) (value, rest string) {
	var b strings.Builder
	kept := 0        // bytes that blanks at the end do not count to
	inValue := false // quotes are quotes only before a value or after another
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\n' || c == '\r':
			return b.String()[:kept], s[i+1:]
		case c == '\\':
			inValue = true
			if i++; i < len(s) && s[i] != '\n' {
				b.WriteByte(s[i])
				kept = b.Len()
			}
		case !inValue && (c == '\'' || c == '"'):
			i += 1 + quotedValue(s[i+1:], c, &b)
			kept = b.Len()
		case c == ' ' || c == '\t':
			if inValue {
				b.WriteByte(c)
			}
		default:
			inValue = true
			b.WriteByte(c)
			kept = b.Len()
		}
	}
	return b.String()[:kept], ""
}

// quotedValue takes what stands before a closing quote, and tells where that is.
func quotedValue(s string, quote byte, b *strings.Builder) int {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			return i
		case c == '\\' && quote == '"' && i+1 < len(s):
			i++
			if strings.IndexByte("\"\\`$\n", s[i]) < 0 {
				b.WriteByte('\\')
			}
			if s[i] != '\n' {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return len(s)
}

// isVariableName tells what systemd takes as a variable's name
// (env_name_is_valid in systemd src/basic/env-util.c).
func isVariableName(name string) bool {
	for i, c := range name {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
