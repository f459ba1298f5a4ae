package layout

import "strings"

// splitShell splits the text of sh -c into its commands and those into words.
// It knows quotes, backslashes, comments and what ends a command or a word;
// variables and substitutions stay as they are written, for their values are
// not known. This is for one rare form, and a library for it
// (github.com/mattn/go-shellwords) could run commands of the text it reads.
func splitShell(text string) [][]string {
	s := shellSplitter{}
	for i := 0; i < len(text); i++ {
		i = s.next(text, i)
	}
	s.endCommand()
	return s.commands
}

type shellSplitter struct {
	commands [][]string
	command  []string
	word     strings.Builder
	inWord   bool
	redirect bool // the next word is a file of a redirection
}

// next takes the character at i, or a quoted text that starts there, and
// returns the index of the last byte taken.
func (s *shellSplitter) next(text string, i int) int {
	switch c := text[i]; c {
	case ' ', '\t', '\r':
		s.endWord()
	case '\n', ';', '&', '|', '(', ')':
		if c == '&' && s.redirect { // 2>&1
			return i
		}
		if c == '(' && s.inWord { // $(…) and the like
			return s.take(text[i:], i)
		}
		s.endCommand()
	case '<', '>':
		if w := s.word.String(); len(w) == 1 && w[0] >= '0' && w[0] <= '9' {
			s.word.Reset()
			s.inWord = false
		}
		s.endWord()
		s.redirect = true
	case '#':
		if !s.inWord {
			return skipLine(text, i)
		}
		s.add(c)
	case '\'':
		return s.single(text, i)
	case '"':
		return s.double(text, i)
	case '\\':
		if i+1 < len(text) {
			i++
			if text[i] != '\n' {
				s.add(text[i])
			}
		}
		return i
	default:
		s.add(c)
	}
	return i
}

func (s *shellSplitter) add(c byte) {
	s.word.WriteByte(c)
	s.inWord = true
}

func (s *shellSplitter) endWord() {
	if s.inWord {
		if !s.redirect {
			s.command = append(s.command, s.word.String())
		}
		s.redirect = false
	}
	s.word.Reset()
	s.inWord = false
}

func (s *shellSplitter) endCommand() {
	s.endWord()
	s.redirect = false
	if len(s.command) > 0 {
		s.commands = append(s.commands, s.command)
	}
	s.command = nil
}

// take keeps a parenthesis and what is in it as part of the word.
func (s *shellSplitter) take(text string, i int) int {
	depth := 0
	for n := 0; n < len(text); n++ {
		s.add(text[n])
		switch text[n] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			return i + n
		}
	}
	return i + len(text)
}

func (s *shellSplitter) single(text string, i int) int {
	s.inWord = true
	for i++; i < len(text) && text[i] != '\''; i++ {
		s.word.WriteByte(text[i])
	}
	return i
}

func (s *shellSplitter) double(text string, i int) int {
	s.inWord = true
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' && i+1 < len(text) && strings.IndexByte("\"\\$`\n", text[i+1]) >= 0 {
			i++
			if text[i] == '\n' {
				continue
			}
		}
		s.word.WriteByte(text[i])
	}
	return i
}

func skipLine(text string, i int) int {
	if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n - 1 // the line's end ends the command
	}
	return len(text)
}
