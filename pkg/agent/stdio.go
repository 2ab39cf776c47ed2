package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Stdio carries the standard streams of one process. One goroutine may read and
// another write; Close may be called at any time.
type Stdio struct {
	conn net.Conn
	buf  []byte
	eof  map[api.Stream]bool // read side only

	wmu    sync.Mutex
	closed bool // stdin
}

// OpenStdio connects to the streams of a container, before or after its start.
// Before: nothing of the output can be missed either way, as the guest holds it
// until the first connection. A wrong token shows at the first ReadFrame.
func OpenStdio(ctx context.Context, vsockPath, token, containerID string) (*Stdio, error) {
	if err := api.CheckID(containerID); err != nil {
		return nil, err
	}
	conn, err := open(ctx, vsockPath, api.Open{
		Version: api.Version, Token: token, Purpose: api.PurposeStdio, Process: containerID,
	})
	if err != nil {
		return nil, err
	}
	return &Stdio{conn: conn, buf: make([]byte, api.MaxData), eof: make(map[api.Stream]bool)}, nil
}

// ReadFrame returns the next piece of output, at most api.MaxData bytes, valid
// until the next call. No bytes are the end of that stream; after the ends of
// both stdout and stderr it returns io.EOF. With a terminal all output is
// stdout. A connection that ends before is io.ErrUnexpectedEOF.
func (s *Stdio) ReadFrame() (api.Stream, []byte, error) {
	if s.eof[api.Stdout] && s.eof[api.Stderr] {
		return 0, nil, io.EOF
	}
	k, b, err := api.ReadFrame(s.conn, s.buf)
	if err != nil {
		return 0, nil, fmt.Errorf("read output: %w", unexpected(err))
	}
	stream := k
	switch {
	case k == api.KindReply:
		return 0, nil, refusal(b)
	case stream != api.Stdout && stream != api.Stderr:
		return 0, nil, fmt.Errorf("frame of kind %d on a stdio connection: %w", k, api.ErrFrame)
	case s.eof[stream]:
		return 0, nil, fmt.Errorf("%s after its end: %w", stream, api.ErrFrame)
	case len(b) == 0:
		s.eof[stream] = true
		return stream, nil, nil
	}
	return stream, b, nil
}

// WriteStdin sends bytes to the process. It blocks while the process does not read.
func (s *Stdio) WriteStdin(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), api.MaxData)
		if err := s.write(b[:n], false); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// CloseStdin is the end of stdin; a terminal has none and ignores it. Idempotent.
func (s *Stdio) CloseStdin() error { return s.write(nil, true) }

func (s *Stdio) write(b []byte, last bool) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		if last {
			return nil
		}
		return fmt.Errorf("write stdin: %w", io.ErrClosedPipe)
	}
	s.closed = last
	if err := api.WriteFrame(s.conn, api.KindStdin, b); err != nil {
		return fmt.Errorf("write stdin: %w", err)
	}
	return nil
}

// Close disconnects; the process goes on, its output is discarded. Idempotent.
func (s *Stdio) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
