package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/state"
)

// fullJournal is a journal in which nothing can be written: a pipe that is full.
type fullJournal struct {
	t *testing.T
	f *os.File
}

func newFullJournal(t *testing.T, root string) *fullJournal {
	t.Helper()
	dir := filepath.Join(root, "events")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "events.jsonl")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	j := &fullJournal{t, f}
	j.fill()
	return j
}

func (j *fullJournal) fill() {
	j.t.Helper()
	raw, err := j.f.SyscallConn()
	if err != nil {
		j.t.Fatal(err)
	}
	page := make([]byte, os.Getpagesize())
	if werr := raw.Write(func(fd uintptr) bool {
		for err == nil || errors.Is(err, unix.EINTR) {
			_, err = unix.Write(int(fd), page)
		}
		return true
	}); werr != nil || !errors.Is(err, unix.EAGAIN) {
		j.t.Fatal(werr, err)
	}
}

// hears makes room until an action is told.
func (j *fullJournal) hears(action string) {
	j.t.Helper()
	j.f.SetReadDeadline(time.Now().Add(time.Minute))
	var told []byte
	for b := make([]byte, os.Getpagesize()); !bytes.Contains(told, []byte(`"`+action+`"`)); {
		n, err := j.f.Read(b)
		if err != nil {
			j.t.Fatalf("%s is not told: %v", action, err)
		}
		told = append(told, b[:n]...)
	}
}

// TestRecordedBeforeTold: who hears of a start or an end finds it in the status.
func TestRecordedBeforeTold(t *testing.T) {
	for name, policy := range map[string]struct {
		name string
		then state.Phase
	}{
		"no policy": {"", state.PhaseExited},
		"a policy":  {"always", state.PhaseRestarting},
	} {
		t.Run(name, func(t *testing.T) {
			var j *fullJournal
			l := begin(t, &fakeVM{echo: true, rest: longestRest}, func(p *Plan) {
				j = newFullJournal(t, filepath.Dir(filepath.Dir(p.Dir)))
				p.Restart.Name = policy.name
			})
			t.Cleanup(func() { // before the life is waited for
				unix.Unlink(j.f.Name())
				j.f.SetReadDeadline(time.Time{})
				go j.f.WriteTo(bytes.NewBuffer(nil))
			})
			l.soon(state.PhaseRunning)
			j.hears("start")
			<-l.outcome
			j.fill()
			if err := l.client.Input(nil); err != nil {
				t.Fatal(err)
			}
			l.soon(policy.then)
			j.hears("die")
		})
	}
}

// soon is until, for what might never be.
func (l *life) soon(p state.Phase) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	w, err := l.store.Watch(l.id)
	if err != nil {
		l.t.Fatal(err)
	}
	defer w.Close()
	for {
		if st, err := l.store.ReadStatus(l.id); err == nil && st != nil && st.Phase == p {
			return
		}
		if err := w.Next(ctx); err != nil {
			l.t.Fatalf("it is not %s: %v", p, err)
		}
	}
}

// TestAutoRemoveThatFails: what is still there is recorded, and nobody is told that
// it has gone.
func TestAutoRemoveThatFails(t *testing.T) {
	l := begin(t, &fakeVM{exit: 5}, func(p *Plan) {
		p.AutoRemove = true
		db := filepath.Join(filepath.Dir(filepath.Dir(p.Dir)), "vms.json")
		if err := os.WriteFile(db, []byte(`{"version":99}`), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	l.final()
	l.wantStatus(5, 0)
	if got, want := l.told(), []string{"start", "die"}; !slices.Equal(got, want) {
		t.Errorf("events %v", got)
	}
}
