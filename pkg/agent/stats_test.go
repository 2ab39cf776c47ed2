package agent

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
)

func TestStats(t *testing.T) {
	c, g := pair(t)
	answers := make(chan string, 1)
	go func() {
		var r api.Request
		for api.ReadMessage(g, api.KindRequest, &r) == nil {
			_ = api.WriteMessage(g, api.KindReply, api.Reply{ID: r.ID, Result: json.RawMessage(<-answers)})
		}
	}()
	answers <- `{"uptime":5,"cpu":4,"memory":3,"read":2,"written":1,"pids":7}`
	want := api.StatsReply{Uptime: 5, CPU: 4, Memory: 3, Read: 2, Written: 1, PIDs: 7}
	if got, err := c.Stats(t.Context(), "a"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	answers <- `{"memory":-1}`
	if got, err := c.Stats(t.Context(), "a"); !errors.Is(err, api.ErrFrame) || got != (api.StatsReply{}) {
		t.Errorf("a lie: %+v, %v", got, err)
	}
}
