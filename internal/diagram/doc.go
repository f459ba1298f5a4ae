// Package diagram turns a judged graph into what a picture of it shows: boxes
// for components, by node; numbered arrows for links, with the state of both
// halves, who signed what is shown there, when the first of it ends, and which
// findings break it. It is pure, and knows nothing of how a picture is drawn.
//
// What is alike is drawn once: fifty workers whose links are in the same state
// are one group of boxes. A node that differs in anything that matters (its
// components, the state of a link, a finding, an authority) leaves its group.
package diagram
