package relay

import "golang.org/x/sys/unix"

// OpenFiles is how many descriptors this process may have, of which each relayed
// connection takes one. Go's runtime has raised it to what it may be raised to.
func OpenFiles() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // Linux's own number
	}
	return l.Cur
}
