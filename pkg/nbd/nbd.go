// Package nbd serves a file as a disk, by the transmission phase of the network
// block device protocol (doc/proto.md of NetworkBlockDevice/nbd): requests come,
// simple replies go, in their order.
//
// It is not a general NBD server: there is no handshake, since both sides know
// the disk already, and the client is the guest's kernel. Requests of the client are hostile:
// none leads beyond the size or past the read-only flag, and memory is one
// buffer, whatever is asked for.
//
// Lifecycle: Serve once for each connection; it keeps nothing.
package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunk is what is read or written at a time, in bytes. Linux asks for that much
// unless it is told otherwise.
const chunk = 128 << 10

// Export is what a client gets.
type Export struct {
	// File is a regular file or a block device.
	File *os.File
	// Size in bytes; the file should have as many.
	Size int64
	// ReadOnly refuses writes, whatever the file would allow.
	ReadOnly bool
}

// Serve answers requests until the client disconnects, the connection ends or ctx
// does, and closes conn. It returns nil after an orderly end: the client has said
// so, and every request was done. An error of the file is the client's: it is
// answered, and the first is returned in the end.
func Serve(ctx context.Context, conn io.ReadWriteCloser, e Export) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s := &server{Export: e, in: bufio.NewReader(conn), out: conn, buf: make([]byte, replySize+chunk)}
	err := s.serve()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errors.Join(err, s.failed)
}

type server struct {
	Export
	in     *bufio.Reader
	out    io.Writer
	buf    []byte // a reply's header, then a chunk
	failed error  // the first error of the file
}

func (s *server) serve() error {
	var head [requestSize]byte
	for {
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return fmt.Errorf("read request: %w", unexpected(err))
		}
		r, err := decode(&head)
		if err != nil {
			return err
		}
		if r.command == cmdDisc {
			return nil
		}
		if err := s.answer(r); err != nil {
			return err
		}
	}
}

// unexpected is err, where an end is not the end that was agreed on.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// answer does what is asked for. Its error is one of the connection.
func (s *server) answer(r request) error {
	refused := r.check(s.Export)
	if r.command == cmdRead && refused == statusOK {
		return s.read(r)
	}
	if r.command == cmdWrite {
		return s.write(r, refused)
	}
	if refused == statusOK && r.command == cmdTrim {
		refused = s.status(s.trim(r))
	}
	if refused == statusOK && (r.command == cmdFlush || r.flags&flagFUA != 0) {
		refused = s.status(s.File.Sync())
	}
	return s.reply(r, refused)
}

func (s *server) reply(r request, st status) error {
	r.reply(s.buf, st)
	if _, err := s.out.Write(s.buf[:replySize]); err != nil {
		return fmt.Errorf("write reply: %w", err)
	}
	return nil
}

// status is the answer for an error of the file.
func (s *server) status(err error) status {
	if err == nil {
		return statusOK
	}
	if s.failed == nil {
		s.failed = err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return statusNoSpace
	}
	return statusIO
}

// read answers a read. Only its first chunk can fail with an answer: behind the
// header of a reply there is no place for an error, so the connection ends.
func (s *server) read(r request) error {
	from := 0 // of buf: the first write takes the header along
	r.reply(s.buf, statusOK)
	for off, left := int64(r.offset), int(r.length); ; {
		n := min(left, chunk)
		if _, err := s.File.ReadAt(s.buf[replySize:replySize+n], off); err != nil {
			st := s.status(fmt.Errorf("read disk: %w", unexpected(err)))
			if from == 0 {
				return s.reply(r, st)
			}
			return s.failed
		}
		if _, err := s.out.Write(s.buf[from : replySize+n]); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
		off, left, from = off+int64(n), left-n, replySize
		if left == 0 {
			return nil
		}
	}
}

// write takes all that was announced, also what it does not want: the next
// request is behind it.
func (s *server) write(r request, st status) error {
	for off, left := int64(r.offset), int(r.length); left > 0; {
		b := s.buf[replySize : replySize+min(left, chunk)]
		if _, err := io.ReadFull(s.in, b); err != nil {
			return fmt.Errorf("read what is to be written: %w", unexpected(err))
		}
		if st == statusOK {
			_, err := s.File.WriteAt(b, off)
			st = s.status(err)
		}
		off, left = off+int64(len(b)), left-len(b)
	}
	if st == statusOK && r.flags&flagFUA != 0 {
		st = s.status(s.File.Sync())
	}
	return s.reply(r, st)
}

// trim gives space back where the file can: it is an offer of the client, and
// what it reads there afterwards may be anything.
func (s *server) trim(r request) error {
	if r.length == 0 {
		return nil
	}
	raw, err := s.File.SyscallConn()
	if err != nil {
		return err
	}
	err = errors.Join(raw.Control(func(fd uintptr) {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(r.offset), int64(r.length))
		}
	}), err)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
