package guest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

func TestCgroupStats(t *testing.T) {
	full := map[string]string{
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
		"memory.current": "1000000\n",
		"memory.stat":    "anon 10\ninactive_anon 7\ninactive_file 400000\n",
		"io.stat":        "254:0 rbytes=100 wbytes=1 rios=3 wios=1\n254:16 rbytes=20 wbytes=4096 rios=1 dbytes=5\n",
		"pids.current":   "12\n",
	}
	want := api.StatsReply{CPU: 1500 * time.Millisecond, Memory: 600000, Read: 120, Written: 4097, PIDs: 12}
	for name, c := range map[string]struct {
		change map[string]string
		want   func(*api.StatsReply)
	}{
		"all":              {nil, func(*api.StatsReply) {}},
		"no io yet":        {map[string]string{"io.stat": ""}, func(s *api.StatsReply) { s.Read, s.Written = 0, 0 }},
		"more cache":       {map[string]string{"memory.stat": "inactive_file 1000001\n"}, func(s *api.StatsReply) { s.Memory = 0 }},
		"no number":        {map[string]string{"pids.current": "many\n"}, func(s *api.StatsReply) { s.PIDs = 0 }},
		"no controller":    {map[string]string{"memory.current": "-", "memory.stat": "-", "io.stat": "-"}, func(s *api.StatsReply) { s.Memory, s.Read, s.Written = 0, 0, 0 }},
		"device without a": {map[string]string{"io.stat": "254:0\n"}, func(s *api.StatsReply) { s.Read, s.Written = 0, 0 }},
	} {
		g := &cgroup{dir: t.TempDir()}
		for file, text := range full {
			if other, ok := c.change[file]; ok {
				text = other
			}
			if text == "-" {
				continue
			}
			if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w := want
		c.want(&w)
		if got, err := g.stats(); err != nil || got != w {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, w)
		}
	}
}

func TestTraffic(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0:    1000      10    1    2    0     0          0         0     2000      20    0    0    0     0       0          0
  eth1:      30       1    0    0    0     0          0         0        4       1    0    0    0     0       0          0
  odd0: 1 2 3
`
	if received, sent := traffic(text); received != 1030 || sent != 2004 {
		t.Errorf("received %d, sent %d", received, sent)
	}
}
