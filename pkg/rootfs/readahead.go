package rootfs

import "io"

// readAhead reads r in a goroutine of its own, a few buffers ahead: what is
// behind r decompresses while this layer is hashed and written.
type readAhead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	done chan struct{}
	cur  chunk
	off  int
}

// chunk is what one Read of r returned.
type chunk struct {
	buf []byte
	n   int
	err error
}

const (
	readAheadBuffers = 4
	readAheadSize    = 128 << 10
)

func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{
		full: make(chan chunk, readAheadBuffers), free: make(chan []byte, readAheadBuffers),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range readAheadBuffers {
		a.free <- make([]byte, readAheadSize)
	}
	go a.run(r)
	return a
}

func (a *readAhead) run(r io.Reader) {
	defer close(a.done)
	for {
		select {
		case <-a.stop:
			return
		case buf := <-a.free:
			n, err := fillBuffer(r, buf, a.stop)
			a.full <- chunk{buf, n, err} // has room for all buffers
			if err != nil {
				return
			}
		}
	}
}

// fillBuffer reads until buf is full, unless it is stopped: readers of
// compressed streams return little at a time.
func fillBuffer(r io.Reader, buf []byte, stop <-chan struct{}) (n int, err error) {
	for n < len(buf) && err == nil {
		select {
		case <-stop:
			return n, io.ErrClosedPipe
		default:
		}
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Read returns what has been read ahead, and then the error of r, for good.
func (a *readAhead) Read(p []byte) (int, error) {
	for a.off == a.cur.n {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf
		}
		a.cur, a.off = <-a.full, 0
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	return n, nil
}

// close waits until r is not read any more.
func (a *readAhead) close() {
	close(a.stop)
	<-a.done
}
