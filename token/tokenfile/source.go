package tokenfile

import (
	"context"
	"fmt"

	"github.com/kubepki/kubepki/internal/reload"
	"github.com/kubepki/kubepki/token"
)

// Source gives the keys of files. It may be used by several goroutines.
type Source struct{ files *reload.Files[*token.KeySet] }

// Open reads files of keys, each as [token.ParseKeys] has it, by paths as
// [os.Open] takes them. The error names the file.
//
// The files are read again as tokens are verified, at most once a second; what
// has changed is taken up within three seconds of use. Keys that cannot be read
// or parsed any more do not take the place of those before: told, which may be
// nil, hears of that once, and with nil of each set that is taken up.
func Open(told func(error), paths ...string) (*Source, error) {
	build := func(contents [][]byte) (*token.KeySet, error) {
		var all []token.Key
		for i, data := range contents {
			keys, err := token.ParseKeys(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", paths[i], err)
			}
			all = append(all, keys...)
		}
		return token.NewKeySet(all...)
	}
	files, err := reload.New(paths, build, func(_ *token.KeySet, err error) {
		if told != nil {
			told(err)
		}
	})
	if err != nil {
		return nil, err
	}
	return &Source{files}, nil
}

// Keys returns the keys of now, and never an error.
func (s *Source) Keys(context.Context, string) (*token.KeySet, error) { return s.files.Get(), nil }
