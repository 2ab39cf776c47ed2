// Package doctest holds the tests of what README.md and docs/ say: their
// commands are run, their tables are compared with the code, their file names
// with a root in use. It has no code of its own outside of tests.
//
// README.md is followed first: it builds, installs, and makes the image
// micropod/busybox. Each page of docs/ then needs nothing of another one, and
// leaves no container.
//
// Every fenced block of a page names its class behind the fence, and a class
// that is not known is an error, so that no command escapes:
//
//	sh           run as a script: every line must succeed
//	sh hub       the same; its images come from a local registry, which stands
//	             in for Docker Hub and for localhost:5000
//	sh tty       the same, with a terminal
//	sh install   apt-get: only the names of the packages are checked
//	sh self      what runs these tests: only that the target exists is checked
//	console      a transcript: "$ command", then its output; an ellipsis stands
//	             for anything, on a line of its own for any lines
//	text         no command
package doctest
