// Package ledger is the form in which each package tells what of its own is left
// behind on the host: files, sockets, locks, processes that nobody needs any more.
//
// It looks at nothing itself. A package that owns something on disk offers a
// check of it, and the manager puts the answers together.
package ledger

import "context"

// Kind says what a finding is about.
type Kind string

// Kinds.
const (
	Process   Kind = "process"
	Socket    Kind = "socket"
	File      Kind = "file"
	Directory Kind = "directory"
	Lock      Kind = "lock"
	Cgroup    Kind = "cgroup"
	Record    Kind = "record"
	Network   Kind = "network"
)

// Finding is one thing that should not be there, or is not as its record says.
// What a living process holds is never one.
type Finding struct {
	Kind Kind
	// Subject is a path, a container or a process.
	Subject string
	// Problem says why it is one.
	Problem string
	// Remedy is what Repair does, "remove it"; where Repair is nil, what a
	// person can do.
	Remedy string
	// Repair does so, after it has made sure, under the lock of the owner, that
	// the finding still holds. Idempotent: what is gone meanwhile is no error. It
	// is nil where nothing can be done without a person.
	Repair func(ctx context.Context) error
}
