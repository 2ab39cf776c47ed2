package usernet

import "testing"

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		files uint64
		want  limits
	}{
		{1 << 63, fullLimits()},
		{4096, fullLimits()},
		{1024, limits{streams: 128, flows: 256, clients: 128, clientFlows: 512}},
		{0, limits{streams: 1, flows: 1, clients: 1, clientFlows: 512}},
	} {
		if got := limitsFor(c.files); got != c.want {
			t.Errorf("%d files: %+v, want %+v", c.files, got, c.want)
		}
	}
}
