package usernet

import "testing"

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		files    uint64
		networks int
		want     limits
	}{
		{1 << 63, 0, fullLimits()},
		{4096, 1, fullLimits()},
		{1024, 1, limits{streams: 128, flows: 256, clients: 128, clientFlows: 512}},
		{4096, 4, limits{streams: 128, flows: 256, clients: 128, clientFlows: 512}},
		{0, 0, limits{streams: 1, flows: 1, clients: 1, clientFlows: 512}},
	} {
		if got := limitsFor(c.files, c.networks); got != c.want {
			t.Errorf("%d files, %d networks: %+v, want %+v", c.files, c.networks, got, c.want)
		}
	}
}
