package main

// hinter is an error that knows what the user can do. Hints belong to the
// command line: packages give typed errors, and this file knows them.
type hinter interface{ Hint() string }

// hints returns what the user can do about an error, a sentence each.
func hints(err error) []string {
	var all []string
	for err := range errorTree(err) {
		if h, ok := err.(hinter); ok && h.Hint() != "" {
			all = append(all, h.Hint())
		}
	}
	return all
}

// errorTree walks an error and everything that it wraps.
func errorTree(err error) func(yield func(error) bool) {
	return func(yield func(error) bool) { walkErrors(err, yield) }
}

func walkErrors(err error, yield func(error) bool) bool {
	if err == nil || !yield(err) {
		return err == nil
	}
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As would do
	case interface{ Unwrap() error }:
		return walkErrors(e.Unwrap(), yield)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walkErrors(inner, yield) {
				return false
			}
		}
	}
	return true
}
