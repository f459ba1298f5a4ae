// Package connlimit keeps the connections of a server few. Where one more comes than may
// be, another is closed for it rather than that it waits: who opens connections and says
// nothing would keep all others away.
package connlimit
