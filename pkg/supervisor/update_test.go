package supervisor

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

func TestUpdate(t *testing.T) {
	limit := int64(5)
	pids := &api.Resources{Pids: &specs.LinuxPids{Limit: &limit}}
	l := begin(t, &fakeVM{runs: true, rest: longestRest}, func(p *Plan) {
		p.StopSignal = 3
		p.VM.CPUs, p.VM.MemoryMiB = 2, 512
		p.Start.Spec = &api.Spec{Linux: &api.SpecLinux{Resources: &api.Resources{}}}
	})
	<-l.outcome
	ask := func(u *Update) string {
		t.Helper()
		r, err := l.command(Command{Op: OpUpdate, Update: u}).Reply()
		if err != nil {
			t.Fatal(err)
		}
		return r.Error
	}
	always := state.RestartPolicy{Name: state.RestartAlways}
	if got := ask(&Update{Restart: always, MemoryMiB: 513}); !strings.HasPrefix(got, "its VM has 512 MiB") {
		t.Errorf("more memory than the VM: %q", got)
	}
	if got := ask(&Update{Restart: always, CPUs: 3}); !strings.HasPrefix(got, "its VM has 2 CPUs") {
		t.Errorf("more CPUs than the VM: %q", got)
	}
	if got := ask(nil); got == "" {
		t.Error("an update of nothing")
	}
	if got := ask(&Update{Restart: always, Resources: pids, CPUs: 2, MemoryMiB: 512}); got != "" {
		t.Error(got)
	}
	l.command(Command{Op: OpSignal, Signal: 10})
	l.until(state.PhaseRestarting) // by the new policy
	if r := l.s.plan.Start.Spec.Linux.Resources; r.Pids == nil || *r.Pids.Limit != 5 {
		t.Errorf("the next VM has %+v", r)
	}
	// Between two VMs there is nobody to tell, but the next one.
	limit = 6
	if got := ask(&Update{Resources: pids}); got != "" {
		t.Error(got)
	}
	l.command(Command{Op: OpStop})
	<-l.ended
	if r := l.s.plan.Start.Spec.Linux.Resources; *r.Pids.Limit != 6 {
		t.Errorf("the next VM has %+v", r)
	}
	l.wantStatus(138, 1)
}

// TestUpdateBetweenTwoLives: what is changed while the next start is prepared is
// not lost with the start before.
func TestUpdateBetweenTwoLives(t *testing.T) {
	l := begin(t, &fakeVM{exit: 1, rest: longestRest}, func(p *Plan) {
		withPolicy("always", 0)(p)
		p.Start.Spec = &api.Spec{Linux: &api.SpecLinux{Resources: &api.Resources{}}}
	})
	l.until(state.PhaseRestarting)
	n := l.s.successor(0)
	limit := int64(5)
	u := &Update{Restart: state.RestartPolicy{Name: state.RestartNo}, Resources: &api.Resources{Pids: &specs.LinuxPids{Limit: &limit}}}
	if r, err := l.command(Command{Op: OpUpdate, Update: u}).Reply(); err != nil || r.Error != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	l.s.handOver(n)
	defer l.s.server.life.Store(l.s)
	if r := n.plan.Start.Spec.Linux.Resources; r.Pids == nil || *r.Pids.Limit != 5 || n.plan.Restart != u.Restart {
		t.Errorf("the next life has %+v, %+v", r, n.plan.Restart)
	}
}
