package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxMessage bounds one message of QEMU. The replies and events that matter
// have some hundred bytes.
const maxMessage = 64 << 10

// qmp is the little of QEMU's control protocol that a start and an end need:
// that the machine runs, and why it stopped.
type qmp struct {
	conn    net.Conn
	running chan struct{} // closed when the machine runs
	onStop  func()        // called when QEMU stops the machine but stays
	done    chan struct{}

	mu     sync.Mutex
	reason string // of the SHUTDOWN event
	stop   bool
}

type qmpMessage struct {
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Data   struct {
		Reason string `json:"reason"` // of SHUTDOWN
		Open   bool   `json:"open"`   // of VSERPORT_CHANGE
		Status string `json:"status"` // of MIGRATION
	} `json:"data"`
	Error *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// openQMP asks QEMU for its state; it will answer once it has set up the machine.
func openQMP(conn net.Conn, onStop func()) *qmp {
	// An error means that QEMU has ended already.
	io.WriteString(conn, `{"execute":"qmp_capabilities"}`+"\n"+`{"execute":"query-status"}`+"\n")
	q := &qmp{conn: conn, running: make(chan struct{}), onStop: onStop, done: make(chan struct{})}
	go q.read()
	return q
}

func (q *qmp) read() {
	defer close(q.done)
	s := bufio.NewScanner(q.conn)
	s.Buffer(make([]byte, 4<<10), maxMessage)
	started := false
	for s.Scan() {
		m, err := parseQMP(s.Bytes())
		if err != nil {
			break
		}
		switch {
		case m.Event == "SHUTDOWN":
			q.mu.Lock()
			q.reason = m.Data.Reason
			q.mu.Unlock()
		case m.Event == "STOP" && started:
			q.mu.Lock()
			leaving := q.reason != ""
			q.stop = !leaving
			q.mu.Unlock()
			if !leaving {
				q.onStop()
			}
		// One that starts from a template says so when all is read.
		case !started && (isRunning(m.Return) || m.Event == "RESUME"):
			started = true
			close(q.running)
		}
	}
	io.Copy(io.Discard, q.conn) // QEMU must not block on what we cannot read
}

func parseQMP(line []byte) (qmpMessage, error) {
	var m qmpMessage
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("decode qmp message: %w", err)
	}
	if m.Error != nil {
		return m, errors.New(m.Error.Desc)
	}
	return m, nil
}

func isRunning(ret json.RawMessage) bool {
	var status struct {
		Running bool `json:"running"`
	}
	return len(ret) > 0 && json.Unmarshal(ret, &status) == nil && status.Running
}

// ended tells why the machine went down: QEMU's word for it ("guest-reset",
// "guest-panic" …), and whether QEMU stopped it because of an error of its own.
func (q *qmp) ended() (reason string, stopped bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason, q.stop
}

// finish waits for the last event. QEMU must have ended.
func (q *qmp) finish() {
	<-q.done
	q.conn.Close()
}
