package health

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

var started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestNext takes results second by second: + is a good one, - a bad one. Behind
// each the status, its first letter, and the failing streak.
func TestNext(t *testing.T) {
	for _, tt := range []struct {
		name          string
		c             state.Healthcheck
		results, want string
	}{
		{"well", state.Healthcheck{}, "+++", "h0 h0 h0"},
		{"three failures by default", state.Healthcheck{}, "----", "s1 s2 u3 u4"},
		{"retries", state.Healthcheck{Retries: 1}, "-+-", "u1 h0 u1"},
		{"a success between", state.Healthcheck{Retries: 2}, "-+-+--", "s1 h0 h1 h0 h1 u2"},
		{"recovers", state.Healthcheck{Retries: 2}, "--+", "s1 u2 h0"},
		{"start period", state.Healthcheck{Retries: 2, StartPeriod: 3 * time.Second}, "-----", "s0 s0 s0 s1 u2"},
		{"a success ends the start period", state.Healthcheck{Retries: 2, StartPeriod: 9 * time.Second}, "-+--", "s0 h0 h1 u2"},
	} {
		h := Begin(nil)
		var got []string
		for i, r := range tt.results {
			at := started.Add(time.Duration(i) * time.Second)
			code := 0
			if r == '-' {
				code = 1
			}
			h = Next(tt.c, h, state.HealthResult{Start: at, ExitCode: code}, started)
			got = append(got, fmt.Sprintf("%c%d", h.Status[0], h.FailingStreak))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
	}
}

func TestResultsAreBounded(t *testing.T) {
	h := Begin(nil)
	for i := range 20 {
		before := h
		h = Next(state.Healthcheck{}, h, state.HealthResult{ExitCode: i}, started)
		if len(before.Log) > 0 && before.Log[0].ExitCode != max(0, i-maxResults) {
			t.Fatal("the state before was changed")
		}
	}
	if len(h.Log) != maxResults || h.Log[0].ExitCode != 15 || h.Log[4].ExitCode != 19 {
		t.Errorf("%+v", h.Log)
	}
	again := Begin(&h)
	if again.Status != state.HealthStarting || again.FailingStreak != 0 || len(again.Log) != maxResults {
		t.Errorf("started again: %+v", again)
	}
	if End(again).Status != state.HealthUnhealthy {
		t.Error("what nobody looks at is unhealthy")
	}
}

func TestDelay(t *testing.T) {
	slow := state.Healthcheck{Interval: 20 * time.Second, StartPeriod: 10 * time.Second, StartInterval: time.Second}
	for _, tt := range []struct {
		c      state.Healthcheck
		status state.HealthStatus
		age    time.Duration
		want   time.Duration
	}{
		{state.Healthcheck{}, state.HealthStarting, 0, 30 * time.Second},
		{state.Healthcheck{StartPeriod: time.Minute}, state.HealthStarting, 0, 5 * time.Second},
		{slow, state.HealthStarting, 0, time.Second},
		{slow, state.HealthStarting, 10 * time.Second, 20 * time.Second},
		{slow, state.HealthHealthy, 0, 20 * time.Second},
	} {
		if got := Delay(tt.c, state.Health{Status: tt.status}, tt.age); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt, got, tt.want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		h     *state.Healthcheck
		shell []string
		want  []string
	}{
		{nil, nil, nil},
		{&state.Healthcheck{}, nil, nil},
		{&state.Healthcheck{Test: []string{"NONE"}}, nil, nil},
		{&state.Healthcheck{Test: []string{"CMD"}}, nil, nil},
		{&state.Healthcheck{Test: []string{"OTHER", "x"}}, nil, nil},
		{&state.Healthcheck{Test: []string{"CMD", "a", "b"}}, []string{"sh"}, []string{"a", "b"}},
		{&state.Healthcheck{Test: []string{"CMD-SHELL", "a b"}}, nil, []string{"/bin/sh", "-c", "a b"}},
		{&state.Healthcheck{Test: []string{"CMD-SHELL", "a b"}}, []string{"/bin/ash", "-ec"}, []string{"/bin/ash", "-ec", "a b"}},
	} {
		if got := Command(tt.h, tt.shell); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.h, got, tt.want)
		}
	}
}

func TestMergeAndCheck(t *testing.T) {
	image := &state.Healthcheck{Test: []string{"CMD", "x"}, Interval: 1e9, Timeout: 2e9, StartPeriod: 3e9, StartInterval: 4e9, Retries: 5}
	user := &state.Healthcheck{Timeout: 9e9}
	want := &state.Healthcheck{Test: []string{"CMD", "x"}, Interval: 1e9, Timeout: 9e9, StartPeriod: 3e9, StartInterval: 4e9, Retries: 5}
	if got := Merge(user, image); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if Merge(nil, nil) != nil || Merge(user, nil) != user || Merge(nil, image) != image {
		t.Error("one of them alone")
	}
	for _, tt := range []struct {
		h    *state.Healthcheck
		want string
	}{
		{nil, "<nil>"}, {image, "<nil>"},
		{&state.Healthcheck{Interval: 1000}, "Interval in Healthcheck cannot be less than 1ms"},
		{&state.Healthcheck{Timeout: -1}, "Timeout in Healthcheck cannot be less than 1ms"},
		{&state.Healthcheck{StartPeriod: 1}, "StartPeriod in Healthcheck cannot be less than 1ms"},
		{&state.Healthcheck{StartInterval: 1}, "StartInterval in Healthcheck cannot be less than 1ms"},
		{&state.Healthcheck{Retries: -1}, "Retries in Healthcheck cannot be negative"},
	} {
		if got := fmt.Sprint(Check(tt.h)); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.h, got, tt.want)
		}
	}
}

func TestOutput(t *testing.T) {
	var o Output
	if got := TimedOut(state.Healthcheck{Timeout: 3 * time.Second}, &o).Output; got != "Health check exceeded timeout (3s)" {
		t.Error(got)
	}
	o.Add([]byte("a\xff"))
	if got := TimedOut(state.Healthcheck{}, &o).Output; got != "Health check exceeded timeout (30s): a\ufffd" {
		t.Error(got)
	}
	for range 1000 {
		o.Add(make([]byte, 1<<16))
	}
	if got := o.String(); len(o.kept) != maxOutput || cap(o.kept) > 2*maxOutput || !strings.HasSuffix(got, "\x00...") {
		t.Errorf("%d bytes are kept", len(o.kept))
	}
}
