package image

import (
	"io"
	"sync"
)

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// readAhead decompresses on one core while the LayerStore hashes and writes on
// another. It starts at the first Read and holds aheadBuffers pieces at most.
type readAhead struct {
	src   io.ReadCloser
	once  sync.Once
	full  chan piece
	empty chan []byte
	quit  chan struct{}
	ended chan struct{} // closed when the goroutine has returned

	rest []byte // of the piece being handed out
	buf  []byte // that piece's buffer, to be given back
	err  error
}

type piece struct {
	b   []byte
	err error
}

// newReadAhead takes over src and closes it. A Read of src that blocks must be
// woken by other means before Close.
func newReadAhead(src io.ReadCloser) *readAhead {
	return &readAhead{src: src, quit: make(chan struct{})}
}

func (r *readAhead) start() {
	r.full, r.empty = make(chan piece, aheadBuffers), make(chan []byte, aheadBuffers)
	r.ended = make(chan struct{})
	for range aheadBuffers {
		r.empty <- make([]byte, aheadSize)
	}
	go r.run()
}

func (r *readAhead) run() {
	defer close(r.ended)
	for {
		var buf []byte
		select {
		case buf = <-r.empty:
		case <-r.quit:
			return
		}
		n, err := fill(r.src, buf)
		r.full <- piece{buf[:n], err}
		if err != nil {
			return
		}
	}
}

// fill is io.ReadFull without its own idea of errors.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

func (r *readAhead) Read(p []byte) (int, error) {
	r.once.Do(r.start)
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.buf != nil {
			r.empty <- r.buf
			r.buf = nil
		}
		next := <-r.full
		r.rest, r.err, r.buf = next.b, next.err, next.b[:cap(next.b)]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close ends the goroutine and closes the source.
func (r *readAhead) Close() error {
	close(r.quit)
	if r.ended != nil {
		<-r.ended
	}
	return r.src.Close()
}
