//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// replace puts a file in the place of another as careful operators do: written
// beside it and renamed.
func replace(path string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// swap replaces a file of an instance's setting by a rename.
func (b *bench) swap(instance, setting string, content ...[]byte) func(context.Context) error {
	path := b.file(instance, setting)
	return func(context.Context) error { return replace(path, slices.Concat(content...)) }
}

// overwrite replaces the content of a file in its place, as cp does.
func (b *bench) overwrite(instance, setting string, content ...[]byte) func(context.Context) error {
	path := b.file(instance, setting)
	return func(context.Context) error { return os.WriteFile(path, slices.Concat(content...), 0o600) }
}

// link makes the file of an instance's setting a symbolic link to one that
// holds its content, as tools that keep dated files do.
func (b *bench) link(instance, setting string) {
	b.t.Helper()
	path := b.file(instance, setting)
	if err := os.Rename(path, path+"-1"); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(path)+"-1", path); err != nil {
		b.t.Fatal(err)
	}
}

// swapLink switches a link of link to another file. The old one stays.
func (b *bench) swapLink(instance, setting string, content ...[]byte) error {
	path := b.file(instance, setting)
	if err := os.WriteFile(path+"-2", slices.Concat(content...), 0o600); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(path)+"-2", path+"-new"); err != nil {
		return err
	}
	return os.Rename(path+"-new", path)
}

// removeLinked removes what a link pointed at before it was switched.
func (b *bench) removeLinked(instance, setting string) error {
	return os.Remove(b.file(instance, setting) + "-1")
}

// swapPair replaces a key and then, after a while in which the two do not
// belong together, its certificate. meanwhile must not fail.
func (b *bench) swapPair(instance, certificate, key string, c credential, meanwhile func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := replace(b.file(instance, key), c.key); err != nil {
			return err
		}
		for range 4 {
			time.Sleep(400 * time.Millisecond) // the mismatch lasts: that is what is tried
			if meanwhile == nil {
				continue
			}
			if err := meanwhile(ctx); err != nil {
				return fmt.Errorf("while key and certificate do not match: %w", err)
			}
		}
		return replace(b.file(instance, certificate), c.certificate)
	}
}
