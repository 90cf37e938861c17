// Package draw draws what the daemon answers: maps as a tree of text, as SVG
// and in the language of Graphviz. What it writes depends on its input alone.
package draw
