package logdriver

import (
	"bytes"
	"errors"
	"sync"

	"github.com/micropod/micropod/pkg/logfile"
)

// maxQueued bounds the entries of a queue, empty ones too.
const maxQueued = 1 << 16

// queue is the mode non-blocking: entries wait in memory for a sink that takes
// its time. What does not fit is dropped, as docker does, so that the container
// is never held up.
type queue struct {
	limit   int64 // bytes of text
	sink    sink
	written func(error)

	mu      sync.Mutex
	waiting []logfile.Entry
	size    int64
	closed  bool

	wake chan struct{} // one token: there is something to do
	done chan struct{}
}

func newQueue(limit int64, s sink, written func(error)) *queue {
	q := &queue{limit: limit, sink: s, written: written, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// add takes a copy of an entry, unless the queue is full. One that is too long
// for any queue is taken when it is alone.
func (q *queue) add(e logfile.Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := int64(len(e.Text))
	if len(q.waiting) > 0 && (q.size+n > q.limit || len(q.waiting) >= maxQueued) {
		return
	}
	e.Text = bytes.Clone(e.Text)
	q.waiting, q.size = append(q.waiting, e), q.size+n
	q.notify()
}

func (q *queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) run() {
	defer close(q.done)
	for range q.wake {
		for {
			e, more, closed := q.take()
			if !more && closed {
				return
			}
			if !more {
				break
			}
			q.written(errors.Join(q.sink.Write(e), q.sink.Flush()))
		}
	}
}

func (q *queue) take() (e logfile.Entry, more, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.waiting = nil // its memory is free for a while
		return e, false, q.closed
	}
	e = q.waiting[0]
	q.waiting, q.size = q.waiting[1:], q.size-int64(len(e.Text))
	return e, true, q.closed
}

// close returns when all that waits is written.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.notify()
	q.mu.Unlock()
	<-q.done
}
