package api

import (
	"errors"
	"math"
	"testing"
)

func TestStatsCheck(t *testing.T) {
	most := int64(math.MaxInt64 / 4)
	for name, c := range map[string]struct {
		change func(*StatsReply)
		ok     bool
	}{
		"plain": {func(*StatsReply) {}, true}, "large": {func(s *StatsReply) { s.Read, s.PIDs = most, 1<<22 }, true},
		"uptime": {func(s *StatsReply) { s.Uptime = -1 }, false}, "cpu": {func(s *StatsReply) { s.CPU = math.MinInt64 }, false},
		"memory": {func(s *StatsReply) { s.Memory = most + 1 }, false}, "read": {func(s *StatsReply) { s.Read = -1 }, false},
		"written": {func(s *StatsReply) { s.Written = math.MaxInt64 }, false}, "no pids": {func(s *StatsReply) { s.PIDs = -1 }, false},
		"received": {func(s *StatsReply) { s.Received = -1 }, false}, "sent": {func(s *StatsReply) { s.Sent = most + 1 }, false},
		"many pids": {func(s *StatsReply) { s.PIDs = 1<<22 + 1 }, false},
	} {
		s := StatsReply{Uptime: 5, CPU: 4, Memory: 3, Read: 2, Written: 1, PIDs: 1}
		c.change(&s)
		if err := s.Check(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
