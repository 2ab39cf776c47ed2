package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Files is one operation on a container's files. Close may be called at any
// time; everything else is for one goroutine.
type Files struct {
	Info api.FileInfo // of the path, where the operation has one

	conn net.Conn
	stop func() bool // of the watch over the context
	ctx  context.Context
	buf  []byte
	rest []byte // what Read has not given yet
	err  error  // why Read ended
}

// OpenFiles begins an operation and waits for the guest's first answer. What the
// guest refuses is an *api.Error. The end of ctx ends the operation.
func OpenFiles(ctx context.Context, vsockPath, token string, r api.FilesRequest) (*Files, error) {
	conn, err := open(ctx, vsockPath, api.Open{
		Version: api.Version, Token: token, Purpose: api.PurposeFiles, Files: &r,
	})
	if err != nil {
		return nil, err
	}
	f := &Files{conn: conn, ctx: ctx, buf: make([]byte, api.MaxData)}
	f.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := f.first(r); err != nil {
		f.Close()
		return nil, f.why(err)
	}
	return f, nil
}

// first reads the guest's first answer.
func (f *Files) first(r api.FilesRequest) error {
	reply, err := firstAnswer(f.conn, f.buf, string(r.Op))
	if err != nil || len(reply.Result) == 0 {
		return err
	}
	if err := api.Decode(reply.Result, &f.Info); err != nil {
		return err
	}
	return f.Info.Check()
}

// firstAnswer reads the guest's Reply to an Open, with room in buf or, if that is nil, of
// its own, and returns the error that it may hold. op is for errors of the connection.
func firstAnswer(conn net.Conn, buf []byte, op string) (api.Reply, error) {
	kind, b, err := api.ReadFrame(conn, buf)
	if err != nil {
		return api.Reply{}, fmt.Errorf("%s: %w", op, unexpected(err))
	}
	if kind != api.KindReply {
		return api.Reply{}, fmt.Errorf("frame of kind %d before the first answer: %w", kind, api.ErrFrame)
	}
	return answer(b)
}

// openAnswered is open, and waits for the guest's first answer. What the guest refuses is
// an *api.Error. ctx is for the call only.
func openAnswered(ctx context.Context, vsockPath string, o api.Open, op string) (net.Conn, api.Reply, error) {
	conn, err := open(ctx, vsockPath, o)
	if err != nil {
		return nil, api.Reply{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	reply, err := firstAnswer(conn, nil, op)
	if !stop() { // it is closed
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, api.Reply{}, err
	}
	return conn, reply, nil
}

// answer decodes a Reply, and returns the error that it may hold.
func answer(b []byte) (api.Reply, error) {
	var r api.Reply
	if err := api.Decode(b, &r); err != nil {
		return r, err
	}
	if r.Error != nil {
		r.Error.Clean()
		return r, r.Error
	}
	return r, nil
}

// why is the story behind an error: the end of the context, if it was that.
func (f *Files) why(err error) error {
	if err != nil && f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	return err
}

// Read gives the bytes of the operation. It returns io.EOF only if the guest
// said that it gave all of them.
func (f *Files) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		f.rest, f.err = f.next()
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads the next piece; io.EOF is the guest's last word that all is well.
func (f *Files) next() ([]byte, error) {
	kind, b, err := api.ReadFrame(f.conn, f.buf)
	switch {
	case err != nil:
		return nil, f.why(unexpected(err))
	case kind == api.KindStdout && len(b) > 0:
		return b, nil
	case kind == api.KindReply:
		if _, err := answer(b); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	return nil, fmt.Errorf("frame of kind %d, %d bytes, among a file's bytes: %w", kind, len(b), api.ErrFrame)
}

// Send gives the guest all of r, and returns its last word. A guest that has
// seen enough ends it at once, with r not read to its end; r may be read once
// more even after that.
func (f *Files) Send(r io.Reader) error {
	sent := make(chan error, 1)
	go func() { sent <- f.send(r) }()
	last := make(chan error, 1)
	go func() {
		_, err := f.next()
		last <- err
	}()
	select {
	case err := <-last:
		return f.verdict(err)
	case err := <-sent:
		var source *sourceError
		if errors.As(err, &source) {
			return source.err
		}
		// Else the guest took all, or it does not take more: it says why.
		return f.verdict(<-last)
	}
}

// verdict makes the end of the guest's frames the result.
func (f *Files) verdict(err error) error {
	f.conn.SetWriteDeadline(time.Unix(1, 0)) // ends send, if it goes on
	if err == nil {
		return fmt.Errorf("bytes where an answer belongs: %w", api.ErrFrame)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sourceError is a failure of the reader of Send.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

func (f *Files) send(r io.Reader) error {
	buf := make([]byte, api.MaxData)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := api.WriteFrame(f.conn, api.KindStdin, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return api.WriteFrame(f.conn, api.KindStdin, nil)
		}
		if err != nil {
			return &sourceError{err}
		}
	}
}

// Changes calls each for every change that the guest sends. It keeps none.
func (f *Files) Changes(each func(api.Change) error) error {
	r := bufio.NewReaderSize(f, api.MaxPath+2)
	for {
		b, err := r.ReadSlice(0)
		if errors.Is(err, io.EOF) && len(b) == 0 {
			return nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("change without an end: %w", api.ErrFrame)
		}
		if err != nil {
			return err
		}
		c := api.Change(bytes.TrimSuffix(b, []byte{0}))
		if err := c.Check(); err != nil {
			return err
		}
		if err := each(c); err != nil {
			return err
		}
	}
}

// Close ends the operation, wherever it is. Idempotent.
func (f *Files) Close() error {
	f.stop()
	if err := f.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
