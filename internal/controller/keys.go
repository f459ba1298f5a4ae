package controller

// claim is a public key that has been certified for a name, and how many
// requests show that.
type claim struct {
	key   [32]byte
	name  string // the common name
	count int
	next  *claim // another name with the same key
}

// keys knows for which names a public key has been certified, as far as the
// requests that there are show it. The key is the SHA-256 sum of its
// SubjectPublicKeyInfo in DER.
type keys map[[32]byte]*claim

func (k keys) claim(key [32]byte, name string) *claim {
	for c := k[key]; c != nil; c = c.next {
		if c.name == name {
			c.count++
			return c
		}
	}
	c := &claim{key: key, name: name, count: 1, next: k[key]}
	k[key] = c
	return c
}

// release takes back one claim, which may be nil.
func (k keys) release(c *claim) {
	if c == nil {
		return
	}
	if c.count--; c.count > 0 {
		return
	}
	if k[c.key] == c && c.next == nil {
		delete(k, c.key)
		return
	}
	if k[c.key] == c {
		k[c.key] = c.next
		return
	}
	for o := k[c.key]; o != nil; o = o.next {
		if o.next == c {
			o.next = c.next
			return
		}
	}
}

// names are those for which a key has been certified.
func (k keys) names(key [32]byte) []string {
	var all []string
	for c := k[key]; c != nil; c = c.next {
		all = append(all, c.name)
	}
	return all
}
