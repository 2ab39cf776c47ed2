package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/micropod/micropod/pkg/manager"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is a terminal whose mode has been changed for a container with -t.
// restore must be called in every ending.
type terminal struct {
	fd   int
	old  unix.Termios
	once sync.Once
}

// makeRaw hands every byte typed on f to the container. Until the container
// runs (see passKeys), the keys that send signals still interrupt this program,
// and its warnings still get their carriage returns.
func makeRaw(f *os.File) (*terminal, error) {
	t := &terminal{fd: int(f.Fd())}
	old, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's mode: %w", err)
	}
	t.old = *old
	raw := rawMode(*old)
	raw.Lflag |= unix.ISIG
	raw.Oflag |= old.Oflag & unix.OPOST
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	return t, nil
}

// rawMode is cfmakeraw(3).
func rawMode(t unix.Termios) unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return t
}

// passKeys lets the container have Ctrl-C and its like too, and its output as it is.
func (t *terminal) passKeys() {
	if t == nil {
		return
	}
	raw := rawMode(t.old)
	// A terminal that is gone is noticed by the reader of its input.
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &raw)
}

// restore sets the mode that makeRaw found. Idempotent, and safe on nil.
func (t *terminal) restore() {
	if t == nil {
		return
	}
	t.once.Do(func() { _ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &t.old) })
}

// terminalSize is the size of the first terminal among files.
func terminalSize(files ...*os.File) (manager.Size, bool) {
	for _, f := range files {
		cols, rows, err := term.GetSize(int(f.Fd()))
		if err == nil && cols > 0 && rows > 0 && cols <= 0xffff && rows <= 0xffff {
			return manager.Size{Cols: uint16(cols), Rows: uint16(rows)}, true
		}
	}
	return manager.Size{}, false
}

// defaultDetachKeys leave a container without ending it: ctrl-p ctrl-q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys turns docker's notation, keys separated by commas, each a
// character or ctrl-X, into the bytes that a terminal sends.
func parseDetachKeys(keys string) ([]byte, error) {
	if keys == "" {
		keys = defaultDetachKeys
	}
	var out []byte
	for key := range strings.SplitSeq(keys, ",") {
		b, ok := detachKey(key)
		if !ok {
			return nil, fmt.Errorf("invalid detach keys (%s): unknown key %q: use a character or ctrl-X, where X is a letter or one of @ [ \\ ] ^ _", keys, key)
		}
		out = append(out, b)
	}
	return out, nil
}

func detachKey(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], key[0] < 0x80
	}
	name, isCtrl := strings.CutPrefix(key, "ctrl-")
	switch {
	case strings.EqualFold(key, "DEL"):
		return 0x7f, true
	case !isCtrl || len(name) != 1:
		return 0, false
	case name[0] >= 'a' && name[0] <= 'z':
		return name[0] - 'a' + 1, true
	case name[0] == '@' || name[0] >= '[' && name[0] <= '_':
		return name[0] - '@', true
	}
	return 0, false
}
