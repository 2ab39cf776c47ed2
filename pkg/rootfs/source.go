package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// source is the stream of a tar. All of it is hashed and counted; what is read
// while quiet is false goes into the frame too. archive/tar reads headers,
// padding and contents apart and never ahead, which makes this work.
type source struct {
	ctx   context.Context
	br    *bufio.Reader
	r     io.Reader
	hash  hash.Hash
	n     int64 // bytes read from the stream
	given int64 // bytes given to the tar reader
	max   int64
	frame *frameWriter
	quiet bool
	err   error // of the stream or the frame, not of the archive
}

func newSource(ctx context.Context, r io.Reader, max int64, frame *frameWriter) *source {
	s := &source{ctx: ctx, r: r, hash: sha256.New(), max: max, frame: frame}
	s.br = bufio.NewReaderSize(readerFunc(s.fill), 128<<10)
	return s
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fill reads from the stream.
func (s *source) fill(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, s.fail(err)
	}
	n, err := s.r.Read(p)
	s.hash.Write(p[:n])
	s.n += int64(n)
	if s.n > s.max {
		return 0, s.fail(fmt.Errorf("%w: tar of more than %d bytes", ErrLimit, s.max))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.fail(fmt.Errorf("read layer: %w", err))
	}
	return n, err
}

func (s *source) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	return err
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.br.Read(p)
	s.given += int64(n)
	if !s.quiet && n > 0 {
		if ferr := s.frame.add(p[:n]); ferr != nil {
			return 0, s.fail(ferr)
		}
	}
	return n, err
}

// explain returns the error of the stream where it is the cause of err, which
// otherwise is about the archive.
func (s *source) explain(err error) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: %w", ErrLayer, err)
}

func (s *source) sum() string { return hex.EncodeToString(s.hash.Sum(nil)) }
