package main

import "github.com/micropod/micropod/pkg/manager"

type healthView struct {
	Status        string
	FailingStreak int
	Log           []healthResultView
}

type healthResultView struct {
	Start, End string
	ExitCode   int
	Output     string
}

// inspectHealth is docker's State.Health.
func inspectHealth(h *manager.Health) *healthView {
	if h == nil {
		return nil
	}
	v := &healthView{Status: string(h.Status), FailingStreak: h.FailingStreak, Log: []healthResultView{}}
	for _, r := range h.Log {
		v.Log = append(v.Log, healthResultView{
			Start: inspectTime(r.Start), End: inspectTime(r.End), ExitCode: r.ExitCode, Output: r.Output,
		})
	}
	return v
}
