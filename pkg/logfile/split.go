package logfile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Splitter makes lines of what streams deliver. The zero value is ready to use.
type Splitter struct{ stdout, stderr unfinished }

// unfinished is the beginning of a line whose end has not come yet.
type unfinished struct {
	text  []byte
	at    time.Time
	piece int    // how many pieces were emitted
	id    string // once there is one
}

func (s *Splitter) stream(name Stream) *unfinished {
	if name == Stderr {
		return &s.stderr
	}
	return &s.stdout
}

// Split calls emit for each line that is complete with b, which came at a time,
// and for each piece of MaxText bytes. The rest waits for its end.
func (s *Splitter) Split(name Stream, at time.Time, b []byte, emit func(Entry)) {
	u := s.stream(name)
	for len(b) > 0 {
		if len(u.text) == 0 && u.piece == 0 {
			u.at = at
		}
		line, rest, full := bytes.Cut(b, []byte{'\n'})
		if room := MaxText - len(u.text); len(line) >= room {
			line, rest, full = b[:room], b[room:], false
		}
		u.text = append(u.text, line...)
		b = rest
		if full || len(u.text) == MaxText {
			emit(u.take(name, full))
		}
	}
}

// Flush emits the lines that have no end.
func (s *Splitter) Flush(emit func(Entry)) {
	for _, name := range []Stream{Stdout, Stderr} {
		if u := s.stream(name); len(u.text) > 0 {
			emit(u.take(name, false))
		}
	}
}

// take makes an entry of what is there.
func (u *unfinished) take(name Stream, full bool) Entry {
	e := Entry{At: u.at, Stream: name, Text: u.text}
	u.text = u.text[:0]
	if full && u.piece == 0 {
		return e
	}
	if u.piece == 0 {
		u.id = newID()
	}
	u.piece++
	e.Piece, e.Last, e.Line = u.piece, full, u.id
	if full {
		u.piece = 0
	}
	return e
}

func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}
