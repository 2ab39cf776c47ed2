package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

func TestRestartPolicy(t *testing.T) {
	const none = time.Duration(-1)
	policy := func(name string, most int) state.RestartPolicy {
		return state.RestartPolicy{Name: name, MaximumRetryCount: most}
	}
	for name, tt := range map[string]struct {
		ending
		want time.Duration
	}{
		"no policy":            {ending{exitCode: 1}, none},
		"no":                   {ending{policy: policy("no", 0), exitCode: 1}, none},
		"always":               {ending{policy: policy("always", 0)}, firstRest},
		"always, and failed":   {ending{policy: policy("always", 0), exitCode: 1}, firstRest},
		"always, stopped":      {ending{policy: policy("always", 0), asked: true}, none},
		"unless stopped":       {ending{policy: policy("unless-stopped", 0), count: 99}, firstRest},
		"it was stopped":       {ending{policy: policy("unless-stopped", 0), exitCode: 143, asked: true}, none},
		"success":              {ending{policy: policy("on-failure", 0)}, none},
		"failure":              {ending{policy: policy("on-failure", 0), exitCode: 1, count: 1000}, firstRest},
		"failure, killed":      {ending{policy: policy("on-failure", 0), exitCode: 137, asked: true}, none},
		"the last try":         {ending{policy: policy("on-failure", 3), exitCode: 1, count: 2}, firstRest},
		"no more tries":        {ending{policy: policy("on-failure", 3), exitCode: 1, count: 3}, none},
		"after a short run":    {ending{policy: policy("always", 0), rest: firstRest, ran: ranLong - 1}, 2 * firstRest},
		"after a long run":     {ending{policy: policy("always", 0), rest: 8 * firstRest, ran: ranLong}, firstRest},
		"nearly the longest":   {ending{policy: policy("always", 0), rest: 51200 * time.Millisecond}, longestRest},
		"the longest":          {ending{policy: policy("always", 0), rest: longestRest}, longestRest},
		"a policy of tomorrow": {ending{policy: policy("sometimes", 0), exitCode: 1}, none},
	} {
		rest, yes := tt.again()
		if !yes {
			rest = none
		}
		if rest != tt.want {
			t.Errorf("%s: %v, want %v", name, rest, tt.want)
		}
	}
}

func withPolicy(name string, most int) func(*Plan) {
	return func(p *Plan) { p.Restart = state.RestartPolicy{Name: name, MaximumRetryCount: most} }
}

// told lists the events of a life so far.
func (l *life) told() []string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.store.Root(), "events", "events.jsonl"))
	if err != nil {
		l.t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		var e events.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			l.t.Fatal(err)
		}
		all = append(all, string(e.Action))
	}
	return all
}

func (l *life) wantStatus(code, restarts int) {
	l.t.Helper()
	st := l.status()
	if st.Phase != state.PhaseExited || st.ExitCode != code || st.RestartCount != restarts || st.FinishedAt.Before(st.StartedAt) {
		l.t.Errorf("status %+v", st)
	}
}

// until waits for a phase of the container.
func (l *life) until(p state.Phase) {
	l.t.Helper()
	w, err := l.store.Watch(l.id)
	if err != nil {
		l.t.Fatal(err)
	}
	defer w.Close()
	for {
		if st, err := l.store.ReadStatus(l.id); err == nil && st != nil && st.Phase == p {
			return
		}
		if err := w.Next(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestRestartUntilTheLastTry(t *testing.T) {
	vm := &fakeVM{output: "x", exit: 3}
	l := begin(t, vm, withPolicy("on-failure", 2))
	// The attached client leaves with the first end, as docker's does.
	f, out := l.final()
	if f.ExitCode != 3 || f.Error != "" || out != "17:x " {
		t.Errorf("final %+v, output %q", f, out)
	}
	l.wantStatus(3, 2)
	want := []string{"start", "die", "start", "die", "start", "die"}
	if got := l.told(); !slices.Equal(got, want) {
		t.Errorf("events %v", got)
	}
	slices.Sort(vm.tokens)
	if len(vm.tokens) != 3 || len(slices.Compact(vm.tokens)) != 3 {
		t.Errorf("tokens of the VMs: %q", vm.tokens)
	}
	if b, err := os.ReadFile(l.store.Paths(l.id).Log()); err != nil || strings.Count(string(b), "\n") != 3 {
		t.Errorf("log %q, %v", b, err)
	}
	l.nothingLeft()
}

func TestSuccessIsNotRestarted(t *testing.T) {
	l := begin(t, &fakeVM{}, withPolicy("on-failure", 0))
	l.final()
	l.wantStatus(0, 0)
}

func TestStopWhileResting(t *testing.T) {
	l := begin(t, &fakeVM{exit: 9, rest: longestRest}, withPolicy("always", 0))
	l.until(state.PhaseRestarting)
	if r, err := l.command(Command{Op: OpPause}).Reply(); err != nil || r.Error != errRestarting.Error() {
		t.Errorf("pause: %+v, %v", r, err)
	}
	if _, err := l.command(Command{Op: OpAttach}).Final(nil); err == nil || err.Error() != errRestarting.Error() {
		t.Errorf("attach: %v", err)
	}
	waiting := l.command(Command{Op: OpWait})
	f, err := l.command(Command{Op: OpStop}).Final(nil)
	if err != nil || f.ExitCode != 9 {
		t.Errorf("stop: %+v, %v", f, err)
	}
	if f, err := waiting.Final(nil); err != nil || f.ExitCode != 9 {
		t.Errorf("wait: %+v, %v", f, err)
	}
	<-l.ended
	l.wantStatus(9, 1)
	if got, want := l.told(), []string{"start", "die"}; !slices.Equal(got, want) {
		t.Errorf("events %v", got)
	}
	l.nothingLeft()
}

func TestSignalWhileResting(t *testing.T) {
	l := begin(t, &fakeVM{exit: 9, rest: longestRest}, withPolicy("always", 0))
	l.until(state.PhaseRestarting)
	if r, err := l.command(Command{Op: OpSignal, Signal: 10}).Reply(); err != nil || r.Error != "" {
		t.Errorf("%+v, %v", r, err)
	}
	<-l.ended
	l.wantStatus(9, 1)
}

// TestSignalsAndThePolicy: without a stop signal of its own, any signal of a user
// says that the container shall not be started again.
func TestSignalsAndThePolicy(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, withPolicy("always", 0))
	<-l.outcome
	l.command(Command{Op: OpSignal, Signal: 10})
	l.final()
	l.wantStatus(138, 0)

	l = begin(t, &fakeVM{runs: true, rest: longestRest}, func(p *Plan) {
		withPolicy("always", 0)(p)
		p.StopSignal = 3
	})
	<-l.outcome
	l.command(Command{Op: OpSignal, Signal: 10})
	l.until(state.PhaseRestarting)
	l.command(Command{Op: OpStop})
	l.final()
	l.wantStatus(138, 1)
}

// TestStopOfALaterStart ends a process that the policy has started.
func TestStopOfALaterStart(t *testing.T) {
	vm := &fakeVM{runs: true}
	l := begin(t, vm, func(p *Plan) {
		withPolicy("unless-stopped", 0)(p)
		p.StopSignal = 3
	})
	<-l.outcome
	l.command(Command{Op: OpSignal, Signal: 10})
	if f, err := l.client.Final(nil); err != nil || f.ExitCode != 138 {
		t.Errorf("the attached client: %+v, %v", f, err)
	}
	l.until(state.PhaseRunning)
	<-l.s.server.life.Load().running
	if f, err := l.command(Command{Op: OpStop}).Final(nil); err != nil || f.ExitCode != 131 {
		t.Errorf("stop: %+v, %v", f, err)
	}
	<-l.ended
	l.wantStatus(131, 1)
	if got, want := l.told(), []string{"start", "kill", "die", "start", "kill", "die"}; !slices.Equal(got, want) {
		t.Errorf("events %v", got)
	}
}

func TestRestartThatFails(t *testing.T) {
	l := begin(t, &fakeVM{exit: 4, startsOnce: true}, withPolicy("always", 0))
	l.final()
	l.wantStatus(4, 1)
	if st := l.status(); st.Error != "start again: no more VMs" {
		t.Errorf("error %q", st.Error)
	}
	l.nothingLeft()
}

func TestFirstStartThatFailsIsTheLast(t *testing.T) {
	l := begin(t, &fakeVM{silent: true}, func(p *Plan) {
		withPolicy("always", 0)(p)
		p.Limits.Boot = time.Millisecond
	})
	if o := <-l.outcome; o.OK {
		t.Error("it started")
	}
	l.final()
	l.wantStatus(125, 0)
}

// TestBootFilesAreHeld: whoever removes old files leaves those alone that a later
// start boots from.
func TestBootFilesAreHeld(t *testing.T) {
	dir := t.TempDir()
	boot := []string{filepath.Join(dir, "vmlinux"), filepath.Join(dir, "initrd")}
	for _, path := range boot {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := begin(t, &fakeVM{runs: true}, func(p *Plan) {
		withPolicy("always", 0)(p)
		p.StopSignal, p.VM.Kernel, p.VM.Initrd = 3, boot[0], boot[1]
	})
	<-l.outcome
	held := func(want bool) {
		t.Helper()
		runtime.GC() // a file that nobody refers to is closed, and not held any more
		runtime.GC()
		for _, path := range boot {
			if got, err := state.Held(path); got != want || err != nil {
				t.Errorf("%s: held %v, %v", path, got, err)
			}
		}
	}
	held(true)
	l.command(Command{Op: OpSignal, Signal: 10})
	if _, err := l.client.Final(nil); err != nil {
		t.Fatal(err)
	}
	l.until(state.PhaseRunning)
	held(true)
	l.command(Command{Op: OpStop})
	<-l.ended
	l.s.dropBootFiles()
	held(false)
}

// TestRestartWithoutLog: a start that cannot even be prepared leaves its reason.
func TestRestartWithoutLog(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, func(p *Plan) {
		withPolicy("always", 0)(p)
		p.StopSignal = 3
		p.Log.Path = filepath.Join(filepath.Dir(p.Log.Path), "logs", "log")
		if err := os.Mkdir(filepath.Dir(p.Log.Path), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	<-l.outcome
	if err := os.RemoveAll(filepath.Dir(l.s.plan.Log.Path)); err != nil {
		t.Fatal(err)
	}
	l.command(Command{Op: OpSignal, Signal: 10})
	l.final()
	l.wantStatus(138, 1)
	if st := l.status(); !strings.HasPrefix(st.Error, "start again: failed to initialize logging driver: ") {
		t.Errorf("error %q", st.Error)
	}
}

// TestErrorOfAnEarlierEnd is not that of a container that runs.
func TestErrorOfAnEarlierEnd(t *testing.T) {
	l := begin(t, &fakeVM{diesOnce: true, runs: true}, withPolicy("always", 0))
	if f, err := l.client.Final(nil); err != nil || f.Error == "" {
		t.Errorf("the first end: %+v, %v", f, err)
	}
	l.until(state.PhaseRunning)
	if st := l.status(); st.Error != "" || st.RestartCount != 1 {
		t.Errorf("status %+v", st)
	}
}

// TestRefusedSignal leaves the restart policy as it is.
func TestRefusedSignal(t *testing.T) {
	l := begin(t, &fakeVM{silent: true}, withPolicy("always", 0))
	for _, sig := range []int{0, 15} {
		if r, err := l.command(Command{Op: OpSignal, Signal: sig}).Reply(); err != nil || r.Error == "" {
			t.Errorf("signal %d before the start: %+v, %v", sig, r, err)
		}
	}
	if l.s.asked.is() {
		t.Error("the policy does not count any more")
	}
	if r, err := l.command(Command{Op: OpSignal, Signal: 9}).Reply(); err != nil || r.Error != "" || !l.s.asked.is() {
		t.Errorf("SIGKILL: %+v, %v", r, err)
	}
	l.final()
}
