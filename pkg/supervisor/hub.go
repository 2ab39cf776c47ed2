package supervisor

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/logfile"
)

// hub takes the container's output to the log and to every attached client.
//
// A client that does not read holds the container up, as it would at a pipe or
// in docker; once the container is to end, it has a bounded time to make
// progress and is dropped then: its connection, cut in the middle of a frame,
// is closed.
type hub struct {
	log      *logdriver.Log
	slog     *slog.Logger
	patience time.Duration

	mu      sync.Mutex
	clients map[*client]struct{}
	watches map[chan struct{}]struct{}
	hurried bool
	holed   bool // the log could not be written the last time
}

// client is a connection that wants output. Only its owner writes to it but
// for the hub, and both hold mu.
type client struct {
	conn net.Conn
	mu   sync.Mutex
}

func newHub(log logdriver.Spec, slog *slog.Logger, patience time.Duration) (*hub, error) {
	h := &hub{
		slog: slog, patience: patience,
		clients: map[*client]struct{}{}, watches: map[chan struct{}]struct{}{},
	}
	var err error
	if h.log, err = logdriver.Open(log, h.written); err != nil {
		return nil, fmt.Errorf("failed to initialize logging driver: %w", err)
	}
	return h, nil
}

var streams = map[api.Kind]logfile.Stream{api.KindStdout: logfile.Stdout, api.KindStderr: logfile.Stderr}

// output delivers a piece of the container's output.
func (h *hub) output(k api.Kind, b []byte) {
	h.log.Write(streams[k], time.Now(), b)
	h.distribute(k, b)
}

// written tells of the log's growth. A log that cannot be written (a full disk)
// does not stop the container, and is told of once.
func (h *hub) written(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !h.holed {
		h.slog.Error("log is incomplete", "err", err)
	}
	h.holed = err != nil
	for w := range h.watches {
		select {
		case w <- struct{}{}:
		default: // it has not taken the last one yet
		}
	}
}

// distribute writes to all clients at once: those who do not read cost the time
// of one.
func (h *hub) distribute(k api.Kind, b []byte) {
	var writes sync.WaitGroup
	for _, c := range h.present() {
		writes.Go(func() {
			if err := h.write(c, k, b); err != nil {
				h.slog.Debug("client lost", "err", err)
				h.remove(c)
				c.conn.Close()
			}
		})
	}
	writes.Wait()
}

func (h *hub) present() []*client {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*client, 0, len(h.clients))
	for c := range h.clients {
		all = append(all, c)
	}
	return all
}

func (h *hub) write(c *client, k api.Kind, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.mu.Lock()
	if h.hurried {
		c.conn.SetWriteDeadline(time.Now().Add(h.patience))
	}
	h.mu.Unlock()
	return api.WriteFrame(c.conn, k, b)
}

// hurry bounds every write to a client from now on, one in progress too.
func (h *hub) hurry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hurried = true
	for c := range h.clients {
		c.conn.SetWriteDeadline(time.Now().Add(h.patience))
	}
}

func (h *hub) add(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[c] = struct{}{}
}

func (h *hub) remove(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
}

// watch returns a channel that has a value whenever the log grew.
func (h *hub) watch() chan struct{} {
	w := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[w] = struct{}{}
	return w
}

func (h *hub) unwatch(w chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watches, w)
}
