package supervisor

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// serve lets the life be that of a VM which serves files.
func (l *life) serve(ours, theirs net.Conn, lock *state.FileLock) {
	l.service = NewService(ours.(*net.UnixConn))
	go func() {
		defer close(l.ended)
		l.s.serveFiles(theirs)
		lock.Unlock()
	}()
	l.t.Cleanup(func() { l.s.kill(errKilled); <-l.ended; ours.Close() })
}

func service(t *testing.T, vm *fakeVM) *life {
	return begin(t, vm, func(p *Plan) {
		p.Service, p.Start = true, api.StartRequest{}
		if vm.noShutdown {
			p.Limits.Shutdown = time.Second
		}
	})
}

// leftAlone checks that of the container nothing has changed.
func (l *life) leftAlone() {
	l.t.Helper()
	l.nothingLeft()
	if st, err := l.store.ReadStatus(l.id); st != nil || err != nil {
		l.t.Errorf("status of a container that never ran: %+v, %v", st, err)
	}
	if _, err := os.Stat(l.store.Paths(l.id).Log()); err == nil {
		l.t.Error("a log of a container that never ran")
	}
}

func TestService(t *testing.T) {
	l := service(t, &fakeVM{})
	if o := <-l.outcome; !o.OK {
		t.Fatalf("outcome %+v", o)
	}
	paths := l.store.Paths(l.id)
	st, err := l.store.ReadService(l.id)
	if err != nil || st == nil || st.VMM.PID != os.Getpid() || st.Supervisor.PID != os.Getpid() {
		t.Errorf("record %+v, %v", st, err)
	}
	if token, err := state.ReadToken(paths); err != nil || token != "secret" {
		t.Errorf("token %q, %v", token, err)
	}
	if _, err := Dial(t.Context(), paths, Command{Op: OpWait}); !errors.Is(err, ErrGone) {
		t.Errorf("it answers as the supervisor of a container that runs: %v", err)
	}
	if err := l.service.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	<-l.ended
	l.leftAlone()
}

func TestServiceEnds(t *testing.T) {
	t.Run("it does not boot", func(t *testing.T) {
		l := service(t, &fakeVM{garbage: true})
		if o := <-l.outcome; o.OK || o.Phase != "setup" {
			t.Errorf("outcome %+v", o)
		}
		<-l.ended
		l.leftAlone()
	})
	t.Run("its client is gone before", func(t *testing.T) {
		l := service(t, &fakeVM{silent: true})
		l.service.conn.Close()
		if o := <-l.outcome; o.OK || !strings.Contains(o.Error, "killed") {
			t.Errorf("outcome %+v", o)
		}
		<-l.ended
		l.leftAlone()
	})
	t.Run("its client is lost", func(t *testing.T) {
		l := service(t, &fakeVM{})
		<-l.outcome
		l.service.conn.Close()
		<-l.ended
		l.leftAlone()
	})
	t.Run("the VM dies", func(t *testing.T) {
		vm := &fakeVM{}
		l := service(t, vm)
		<-l.outcome
		vm.m.Kill()
		if err := l.service.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "the guest went down") {
			t.Errorf("close: %v", err)
		}
		<-l.ended
		l.leftAlone()
	})
	t.Run("the guest does not flush", func(t *testing.T) {
		l := service(t, &fakeVM{noShutdown: true})
		<-l.outcome
		if err := l.service.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "may be lost") {
			t.Errorf("close: %v", err)
		}
		<-l.ended
		l.leftAlone()
	})
}
