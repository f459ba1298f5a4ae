// Package explain says what an error of a component's log means, and what each
// finding of package check means.
//
// [Lines] takes log lines apart: whose log it is, whether it served or dialled,
// and which text of the catalogue in messages/ the line holds. From these follow
// the link, the half of it and the files that it can be about. [Pinpoint] then
// names those of one cluster, from its graph and its findings. [Pages] are the
// pages about findings, in findings/.
//
// It is pure: what it knows is embedded, and what it looks at is given.
package explain
