// Package saidtext finds the error texts in Go sources. Only tests import it:
// those that ask whether the catalogue of package explain knows them all.
package saidtext

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// makers are the functions whose first text becomes an error's.
var makers = []string{"errors.New", "fmt.Errorf", "newRecordHeaderError"}

// Texts returns the texts of errors that the files of a pattern make, tests left
// out: those given to errors.New and fmt.Errorf, and those in Error methods. A
// verb of a format has become a word; a text that goes on with what is not known
// ends with a blank.
func Texts(pattern string) ([]string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if slices.Contains(makers, nameOf(n.Fun)) {
					all = append(all, given(n.Args)...)
				}
			case *ast.FuncDecl:
				if n.Name.Name == "Error" && n.Recv != nil && n.Body != nil {
					all = append(all, literals(n.Body)...)
				}
			}
			return true
		})
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if of, ok := e.X.(*ast.Ident); ok && (of.Name == "errors" || of.Name == "fmt") {
			return of.Name + "." + e.Sel.Name
		}
		return e.Sel.Name
	}
	return ""
}

// given returns the text among the arguments of a call, which may be joined from
// several; what is no literal is left open.
func given(arguments []ast.Expr) []string {
	for _, a := range arguments {
		if text, ok := joined(a); ok {
			return []string{filled(text)}
		}
	}
	return nil
}

func joined(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := joined(e.X)
		right, also := joined(e.Y)
		if !ok {
			return "", false
		}
		if !also {
			right = "word"
		}
		return left + right, true
	}
	return "", false
}

func literals(body ast.Node) []string {
	var all []string
	ast.Inspect(body, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if text, err := strconv.Unquote(l.Value); err == nil && len(strings.Fields(text)) > 1 {
				all = append(all, filled(text))
			}
		}
		return true
	})
	return all
}

var verbs = regexp.MustCompile(`%[+#.\d]*[a-zA-Z]`)

// filled puts words in the place of verbs.
func filled(format string) string {
	return verbs.ReplaceAllStringFunc(format, func(verb string) string {
		switch verb[len(verb)-1] {
		case 'q':
			return `"word"`
		case 'd', 'x':
			return "7"
		}
		return "word"
	})
}
