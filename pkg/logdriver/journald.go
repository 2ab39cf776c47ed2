package logdriver

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/logfile"
)

// journalPatience suits a journald that is busy, not one that hangs.
const journalPatience = 10 * time.Second

// journal sends entries to journald by its native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL), with docker's fields.
type journal struct {
	path    string
	conn    *net.UnixConn // nil: journald went away
	fields  []byte        // of every entry
	ordinal uint64
	stuck   bool // it took nothing the last time
	// patience is how long a journald that takes nothing may hold a container up:
	// it costs entries from then on, until it takes one again.
	patience time.Duration
}

// openJournal fails where there is no journald.
func openJournal(s Spec) (*journal, error) {
	tag, err := s.tag(defaultTag)
	if err != nil {
		return nil, err
	}
	j := &journal{path: s.JournalSocket, patience: journalPatience}
	if j.path == "" {
		j.path = JournalSocket
	}
	attrs, err := s.attributes(journalKey)
	if err != nil {
		return nil, err
	}
	epoch := make([]byte, 32)
	rand.Read(epoch) // never fails: crypto/rand ends the program instead
	for k, v := range map[string]string{
		"CONTAINER_ID": short(s.Container.ID), "CONTAINER_ID_FULL": s.Container.ID, "CONTAINER_NAME": s.Container.Name,
		"CONTAINER_TAG": tag, "IMAGE_NAME": s.Container.ImageName, "SYSLOG_IDENTIFIER": tag,
		"CONTAINER_LOG_EPOCH": hex.EncodeToString(epoch),
	} {
		if _, own := attrs[k]; !own { // as docker: the user's may replace ours
			attrs[k] = v
		}
	}
	for k, v := range attrs {
		if k != "" {
			j.fields = appendField(j.fields, k, []byte(v))
		}
	}
	if err := j.dial(); err != nil {
		return nil, errors.New("journald is not enabled on this host")
	}
	return j, nil
}

// dial connects, so that waiting for place in journald's queue is possible.
func (j *journal) dial() (err error) {
	j.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.path, Net: "unixgram"})
	return err
}

// journalKey is a label's or variable's name as journald takes it.
func journalKey(s string) string {
	key := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(key, "_")
}

// appendField appends a field. A value with a newline is told by its length.
func appendField(b []byte, key string, value []byte) []byte {
	b = append(b, key...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

// message is an entry in journald's words.
func (j *journal) message(e logfile.Entry) []byte {
	b := bytes.Clone(j.fields)
	field := func(key, value string) { b = appendField(b, key, []byte(value)) }
	priority := "6" // info, as docker has it
	if e.Stream == logfile.Stderr {
		priority = "3" // err
	}
	field("PRIORITY", priority)
	field("SYSLOG_TIMESTAMP", e.At.UTC().Format(time.RFC3339Nano))
	field("CONTAINER_LOG_ORDINAL", strconv.FormatUint(j.ordinal, 10))
	if e.Piece > 0 {
		field("CONTAINER_PARTIAL_ID", e.Line)
		field("CONTAINER_PARTIAL_ORDINAL", strconv.Itoa(e.Piece))
		field("CONTAINER_PARTIAL_LAST", strconv.FormatBool(e.Last))
		if !e.Last {
			field("CONTAINER_PARTIAL_MESSAGE", "true")
		}
	}
	return appendField(b, "MESSAGE", e.Text)
}

// Write sends an entry, over a new connection if journald was started anew.
func (j *journal) Write(e logfile.Entry) error {
	j.ordinal++
	b := j.message(e)
	err := j.send(b)
	if err != nil && !j.stuck {
		j.Close()
		if err = j.dial(); err == nil {
			err = j.send(b)
		}
	}
	if err != nil {
		return fmt.Errorf("write to journald: %w", err)
	}
	return nil
}

// send sends a datagram. One that journald has no place for waits for a while,
// the first of them.
func (j *journal) send(b []byte) error {
	err := j.sendmsg(b, nil)
	if errors.Is(err, unix.EMSGSIZE) {
		err = j.sendFile(b)
	}
	j.stuck = errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.EAGAIN)
	return err
}

func (j *journal) sendmsg(b, oob []byte) error {
	if j.conn == nil {
		return net.ErrClosed
	}
	var until time.Time
	if !j.stuck {
		until = time.Now().Add(j.patience)
	}
	if err := j.conn.SetWriteDeadline(until); err != nil {
		return err
	}
	rc, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = rc.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), b, oob, nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN || j.stuck
	})
	return errors.Join(err, sent)
}

// sendFile sends what is too long for a datagram as a sealed file in memory.
func (j *journal) sendFile(b []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "journal-entry")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	return j.sendmsg(nil, unix.UnixRights(int(f.Fd())))
}

// Flush does nothing: an entry is a datagram.
func (j *journal) Flush() error { return nil }

// Close gives the connection up. Idempotent.
func (j *journal) Close() error {
	if j.conn == nil {
		return nil
	}
	err := j.conn.Close()
	j.conn = nil
	return err
}
