// Package logfile writes and reads a container's log on disk.
//
// A log is a file and those that were full before it, PATH.1, PATH.2 and so on:
// a number is given once, so that a reader never takes one file for another.
// How many there are, and how large, is bounded: a container that prints
// without end fills no disk. An older one may be compressed, as PATH.3.gz.
//
// One process writes. Any number read at the same time, without a lock: what
// they have open stays theirs, and what they come too late for is gone.
package logfile

import "time"

// Stream is where a line was written.
type Stream string

// Streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// MaxText is the longest piece of a line that is held back while its end is
// awaited, in bytes, as in docker.
const MaxText = 16 << 10

// Entry is a line that a container wrote, or a piece of one.
type Entry struct {
	At     time.Time // of the line: its pieces have the same
	Stream Stream
	// Text without a newline, byte for byte. Valid until the next entry is made.
	Text []byte
	// Piece counts the pieces of a line that is longer than MaxText, or that has
	// no end, from 1; 0 is a whole line.
	Piece int
	// Last says that the line ends with this piece.
	Last bool
	// Line is an id that the pieces of one line share, "" for a whole line.
	Line string
}

// Ends reports whether a newline follows.
func (e Entry) Ends() bool { return e.Piece == 0 || e.Last }

// Config describes a log.
type Config struct {
	Path   string
	Format Format
	// MaxSize bounds one file, in bytes, where an entry is not longer; 0 is no bound.
	MaxSize int64
	// MaxFiles bounds their number, the present one among them; 1 at least.
	MaxFiles int
	Compress bool // those that are full
}
