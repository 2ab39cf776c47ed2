package supervisor

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// serveCheck is the guest's side of the control connection of one health check:
// "good" ends well, "bad" badly, "flood" prints until it is killed, "stall" does
// not even end then, "mute" does not answer at all, "refused" cannot be executed.
func (m *fakeMachine) serveCheck(c net.Conn) {
	if m.vm.check == "mute" {
		return
	}
	api.WriteMessage(c, api.KindHello, api.Hello{Version: api.Version})
	killed := make(chan struct{})
	for {
		var r api.Request
		if api.ReadMessage(c, api.KindRequest, &r) != nil {
			return
		}
		reply := api.Reply{ID: r.ID, Result: json.RawMessage(`{"pid":9}`)}
		var exec api.ExecRequest
		switch r.Method {
		case api.MethodExec:
			json.Unmarshal(r.Params, &exec)
			if m.vm.check == "refused" {
				reply.Error = &api.Error{Code: api.CodeNotFound, Message: "no such \x1b[31mcommand"}
			}
		case api.MethodSignal:
			close(killed)
		}
		api.WriteMessage(c, api.KindReply, reply)
		if exec.ID != "" && reply.Error == nil {
			go m.runCheck(c, <-m.checks, exec.ID, killed)
		}
	}
}

func (m *fakeMachine) runCheck(control, stdio net.Conn, id string, killed chan struct{}) {
	code := 0
	switch m.vm.check {
	case "good":
		api.WriteFrame(stdio, api.KindStdout, []byte("out "))
		api.WriteFrame(stdio, api.KindStderr, []byte("err"))
	case "bad":
		code = 3
	case "stall":
		return
	case "flood":
		for {
			select {
			case <-killed:
				code = 137
			default:
				if api.WriteFrame(stdio, api.KindStdout, make([]byte, api.MaxData)) != nil {
					return
				}
				continue
			}
			break
		}
	}
	api.WriteFrame(stdio, api.KindStdout, nil)
	api.WriteFrame(stdio, api.KindStderr, nil)
	api.WriteMessage(control, api.KindExit, api.Exit{ID: id, Code: code, At: time.Now()})
}

// checked begins the life of a container whose checks go in one way.
func checked(t *testing.T, check string) *life {
	l := begin(t, &fakeVM{runs: true, check: check}, func(p *Plan) {
		p.Health = &HealthPlan{
			Check: state.Healthcheck{Interval: time.Millisecond, Timeout: time.Minute, Retries: 2},
			Exec:  api.ExecRequest{Container: "c1", Process: &api.SpecProcess{Args: []string{"check"}}},
		}
		switch check { // short limits only for what has to run into them
		case "flood":
			p.Health.Check.Timeout = 50 * time.Millisecond
		case "stall":
			p.Health.Check.Timeout, p.Limits.Kill = 50*time.Millisecond, 100*time.Millisecond
		case "mute":
			p.Limits.Call = 3 * time.Second // the start's calls have it, too
		}
	})
	if o := <-l.outcome; !o.OK {
		t.Fatalf("outcome %+v", o)
	}
	return l
}

// awaitHealth waits for a health that satisfies.
func (l *life) awaitHealth(what string, ok func(h *state.Health) bool) *state.Health {
	l.t.Helper()
	var h *state.Health
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		if h, err = l.store.ReadHealth(l.id); err != nil {
			l.t.Fatal(err)
		}
		if h != nil && ok(h) {
			return h
		}
	}
	l.t.Fatalf("never %s: %+v", what, h)
	return nil
}

func TestHealth(t *testing.T) {
	for _, tt := range []struct {
		check  string
		status state.HealthStatus
		code   int
		output string // the beginning
	}{
		{"good", state.HealthHealthy, 0, "out err"},
		{"bad", state.HealthUnhealthy, 3, ""},
		{"refused", state.HealthUnhealthy, -1, "no such  [31mcommand"},
		{"flood", state.HealthUnhealthy, -1, "Health check exceeded timeout (50ms): \x00"},
		{"stall", state.HealthUnhealthy, -1, "Health check exceeded timeout (50ms)"},
		{"mute", state.HealthUnhealthy, -1, ""},
	} {
		t.Run(tt.check, func(t *testing.T) {
			l := checked(t, tt.check)
			var last state.HealthResult
			l.awaitHealth(fmt.Sprintf("%s, %d, %q", tt.status, tt.code, tt.output), func(h *state.Health) bool {
				if h.Status != tt.status || len(h.Log) < 2 {
					return false
				}
				last = h.Log[len(h.Log)-1]
				// A slow machine's flood may not have begun when its time is over.
				return tt.check != "flood" || strings.HasPrefix(last.Output, tt.output)
			})
			if last.ExitCode != tt.code || !strings.HasPrefix(last.Output, tt.output) || len(last.Output) > 4200 || last.End.Before(last.Start) {
				t.Errorf("%d, %d bytes %.80q, %v to %v", last.ExitCode, len(last.Output), last.Output, last.Start, last.End)
			}
			l.command(Command{Op: OpStop})
			if f, _ := l.final(); f.ExitCode != 128+15 {
				t.Errorf("final %+v", f)
			}
			l.awaitHealth("unhealthy", func(h *state.Health) bool { return h.Status == state.HealthUnhealthy })
			l.nothingLeft()
		})
	}
}

// Nobody is asked while the container is paused, nor after its end.
func TestHealthOfAPausedContainer(t *testing.T) {
	l := checked(t, "stall")
	for _, op := range []Op{OpPause, OpUnpause, OpPause} {
		if r, err := l.command(Command{Op: op}).Reply(); err != nil || r.Error != "" {
			t.Fatalf("%s: %+v, %v", op, r, err)
		}
	}
	before := fmt.Sprint(l.awaitHealth("unhealthy", func(h *state.Health) bool { return h.Status == state.HealthUnhealthy }))
	l.s.health.mu.Lock()
	if l.s.health.stop != nil {
		t.Error("the monitor of a paused container runs")
	}
	l.s.health.mu.Unlock()
	if now := fmt.Sprint(l.awaitHealth("there", func(*state.Health) bool { return true })); now != before {
		t.Errorf("%s, then %s", before, now)
	}
	l.command(Command{Op: OpStop})
	l.final()
	l.s.health.goOn()
	if l.s.health.stop != nil {
		t.Error("the monitor of a container that has ended runs")
	}
}
