package layout

import (
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// unitCommand is one command of a unit's ExecStart=.
type unitCommand struct {
	words []string // the program by its path, and its arguments, expanded
}

// execStart returns the commands of the values of ExecStart=, in order, as
// systemd would run them (man systemd.service, "command lines"). An empty value
// resets what came before.
func execStart(values []string, environment map[string]string, specifiers func(byte) (string, bool)) []unitCommand {
	var commands []unitCommand
	for _, value := range values {
		if value == "" {
			commands = nil
			continue
		}
		var words []unitWord
		for _, w := range append(unitWords(value), unitWord{text: ";"}) {
			if w.text == ";" && !w.quoted {
				if len(words) > 0 {
					commands = append(commands, commandOf(words, environment, specifiers))
				}
				words = nil
				continue
			}
			if w.text == `\;` {
				w.text = ";"
			}
			words = append(words, w)
		}
	}
	return commands
}

// commandOf takes the prefixes off a command and expands its words.
func commandOf(words []unitWord, environment map[string]string, specifiers func(byte) (string, bool)) unitCommand {
	program := strings.TrimLeft(words[0].text, "@-:+!|")
	prefixes := words[0].text[:len(words[0].text)-len(program)]
	c := unitCommand{words: []string{expandSpecifiers(program, specifiers)}}
	rest := words[1:]
	if strings.Contains(prefixes, "@") && len(rest) > 0 {
		rest = rest[1:] // the name that the program is called by
	}
	for _, w := range rest {
		text := expandSpecifiers(w.text, specifiers)
		if strings.Contains(prefixes, ":") {
			c.words = append(c.words, text)
			continue
		}
		c.words = append(c.words, expandWord(text, environment)...)
	}
	return c
}

// expandWord replaces variables: a word that is $NAME becomes the words of its
// value, ${NAME} anywhere its value as it is, and $$ a dollar
// (replace_env_argv in systemd src/basic/env-util.c).
func expandWord(word string, environment map[string]string) []string {
	if name, ok := strings.CutPrefix(word, "$"); ok && isVariableName(name) {
		var words []string
		for _, w := range unitWords(environment[name]) {
			words = append(words, w.text)
		}
		return words
	}
	return []string{expandBraces(word, environment)}
}

func expandBraces(word string, environment map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] != '$' || i+1 == len(word) {
			b.WriteByte(word[i])
			continue
		}
		switch word[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '{':
			end := strings.IndexByte(word[i:], '}')
			if end < 0 || !isVariableName(word[i+2:i+end]) {
				b.WriteByte('$')
				continue
			}
			b.WriteString(environment[word[i+2:i+end]])
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// expandSpecifiers replaces %X; what is not known stays (man systemd.unit,
// "specifiers").
func expandSpecifiers(word string, specifiers func(byte) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] == '%' && i+1 < len(word) {
			if value, ok := specifiers(word[i+1]); ok {
				b.WriteString(value)
				i++
				continue
			}
		}
		b.WriteByte(word[i])
	}
	return b.String()
}

// unitSpecifiers are those that the unit's own name tells.
func unitSpecifiers(unit string) func(byte) (string, bool) {
	stem := strings.TrimSuffix(unit, ".service")
	prefix, instance, _ := strings.Cut(stem, "@")
	return func(c byte) (string, bool) {
		switch c {
		case '%':
			return "%", true
		case 'n':
			return unit, true
		case 'N':
			return stem, true
		case 'p', 'P':
			return prefix, true
		case 'i', 'I':
			return instance, true
		case 't':
			return "/run", true
		case 'S':
			return "/var/lib", true
		case 'E':
			return "/etc", true
		case 'C':
			return "/var/cache", true
		case 'L':
			return "/var/log", true
		}
		return "", false
	}
}

// nodePrograms are the components that units and processes run.
var nodePrograms = append(slices.Clone(programs), catalog.Kubelet, catalog.KubeProxy)

// component finds a component's program in a command, and returns its flags'
// words. A shell's text is split with the variables that the unit sets.
func (c unitCommand) component(environment map[string]string) (name string, words []string) {
	words = c.words
	for len(words) > 0 && isLauncher(words[0]) {
		words = afterLauncher(words)
	}
	if len(words) == 0 {
		return "", nil
	}
	if name := programName(words[0]); name != "" {
		return name, words[1:]
	}
	if len(words) > 1 && strings.HasPrefix(path.Base(words[0]), "hyperkube") {
		// Its subcommands had short names too (k/k cmd/hyperkube before 1.19).
		short := map[string]string{"apiserver": catalog.APIServer, "controller-manager": catalog.ControllerManager, "scheduler": catalog.Scheduler, "proxy": catalog.KubeProxy}
		if name := short[words[1]]; name != "" {
			return name, words[2:]
		}
		if name := programName(words[1]); name != "" {
			return name, words[2:]
		}
	}
	if isShell(words[0]) {
		return shellComponent(words[1:], environment)
	}
	return "", nil
}

func programName(word string) string {
	if base := path.Base(word); slices.Contains(nodePrograms, base) {
		return base
	}
	return ""
}

// shellComponent finds the component that the text of sh -c starts.
func shellComponent(words []string, environment map[string]string) (string, []string) {
	for i, w := range words {
		if !strings.HasPrefix(w, "-") || !strings.Contains(w, "c") || i+1 == len(words) {
			continue
		}
		for _, command := range splitShell(words[i+1]) {
			for len(command) > 0 && (isLauncher(command[0]) || isAssignment(command[0])) {
				command = afterLauncher(command)
			}
			if len(command) == 0 {
				continue
			}
			if name := programName(command[0]); name != "" {
				return name, expandShell(command[1:], environment)
			}
		}
	}
	return "", nil
}

// expandShell replaces the variables that are known in the words of a shell.
func expandShell(words []string, environment map[string]string) []string {
	var out []string
	for _, w := range words {
		if name, ok := strings.CutPrefix(w, "$"); ok {
			if value, known := environment[strings.Trim(name, "{}")]; known {
				out = append(out, strings.Fields(value)...)
				continue
			}
		}
		for name, value := range environment {
			w = strings.ReplaceAll(w, "${"+name+"}", value)
		}
		out = append(out, w)
	}
	return out
}

func isAssignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && isVariableName(name)
}

// isLauncher tells what starts another program that follows it.
func isLauncher(word string) bool {
	return slices.Contains([]string{"exec", "env", "nice", "ionice", "nohup", "setpriv", "taskset", "numactl", "chrt", "stdbuf", "tini", "dumb-init", "sudo"}, path.Base(word))
}

// afterLauncher is what follows a launcher, its own options and variables: all
// before the next component.
func afterLauncher(words []string) []string {
	for i := 1; i < len(words); i++ {
		if programName(words[i]) != "" || isShell(words[i]) || isLauncher(words[i]) || strings.HasPrefix(path.Base(words[i]), "hyperkube") {
			return words[i:]
		}
	}
	return nil
}
