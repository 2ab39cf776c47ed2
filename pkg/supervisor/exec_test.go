package supervisor

import (
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
)

func TestExec(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	ask := func(r *api.ExecRequest) Reply {
		t.Helper()
		reply, err := l.command(Command{Op: OpExec, Exec: r}).Reply()
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	p := &api.SpecProcess{Args: []string{"sh", "-c", "x"}}
	for _, wrong := range []*api.ExecRequest{nil, {ID: "e1", Detach: true}, {ID: "e1", Process: p}} {
		if ask(wrong).Error == "" {
			t.Errorf("%+v was taken", wrong)
		}
	}
	if r := ask(&api.ExecRequest{ID: "e1", Process: p, Detach: true}); r != (Reply{}) {
		t.Errorf("%+v", r)
	}
	if r := ask(&api.ExecRequest{ID: "none", Process: p, Detach: true}); r.Code != api.CodeNotFound || r.Error == "" {
		t.Errorf("%+v", r)
	}
	l.command(Command{Op: OpStop})
	l.final()
	want := []string{"start", "exec_create: sh -c x", "exec_start: sh -c x", "exec_create: sh -c x", "exec_start: sh -c x", "exec_die", "kill", "die"}
	got := l.told() // the end of one and the start of the other have no order
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
}
