package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/state"
)

const (
	// defaultLimit bounds the journal, in bytes; its predecessor is as long.
	defaultLimit = 4 << 20
	// maxLine bounds one line, in bytes. A container may have more labels.
	maxLine = 32 << 10
	// maxValue bounds one attribute of an event whose line would be too long.
	maxValue = 1 << 10
)

// patience is how long Write waits for a writer that was stopped while it held
// the lock. Lines written without it are whole all the same.
const patience = time.Second

// Write appends an event and gives it its time.
func (j *Journal) Write(e Event) error {
	f, locked, err := j.openLocked()
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	defer f.Close() // gives the lock up too
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	e.Time = time.Now().UTC()
	line, err := encode(e)
	if err != nil {
		return err
	}
	if torn(f, st.Size()) {
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.Write(line); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if !locked || st.Size()+int64(len(line)) < j.limit {
		return nil
	}
	// Its last line is written: whoever comes next begins a new file.
	if err := os.Rename(j.path, rotated(j.path)); err != nil {
		return fmt.Errorf("rotate events: %w", err)
	}
	return nil
}

// openLocked opens the journal and takes its lock, or not if somebody keeps it
// for too long.
func (j *Journal) openLocked() (f *os.File, locked bool, err error) {
	for end := time.Now().Add(patience); ; {
		f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, false, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		busy := errors.Is(err, unix.EWOULDBLOCK)
		switch {
		case err == nil && state.SameFile(f, j.path):
			return f, true, nil
		case err != nil && (!busy || time.Now().After(end)):
			// A file system without locks is as good as one that is taken.
			return f, false, nil
		}
		f.Close() // busy, or rotated before we had the lock
		if busy {
			time.Sleep(time.Millisecond)
		}
	}
}

// torn reports whether the last line of a file has no end.
func torn(f *os.File, size int64) bool {
	var last [1]byte
	if size == 0 {
		return false
	}
	_, err := f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

// encode makes a line of an event, which loses what makes it too long.
func encode(e Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err == nil && len(b) >= maxLine {
		b, err = json.Marshal(shortened(e))
	}
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(b) >= maxLine {
		return nil, fmt.Errorf("encode event %.40q: over %d bytes", e.Action, maxLine)
	}
	return append(b, '\n'), nil
}

// shortened keeps of an event the attributes that are not its user's labels,
// and of those the beginning.
func shortened(e Event) Event {
	short := e
	short.Action, short.ID = Action(clip(string(e.Action))), clip(e.ID)
	short.Attributes = map[string]string{}
	for _, name := range []string{
		"name", "image", "oldName", "exitCode", "execDuration", "execID", "signal", "height", "width",
		"comment", "imageID", "imageRef", "reclaimed",
	} {
		if v, ok := e.Attributes[name]; ok {
			short.Attributes[name] = clip(v)
		}
	}
	return short
}

func clip(s string) string { return s[:min(len(s), maxValue)] }
