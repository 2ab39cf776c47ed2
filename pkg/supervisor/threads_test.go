package supervisor

import (
	"runtime"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

func TestNarrow(t *testing.T) {
	for _, c := range []struct{ most, cpus, want int }{{8, 1, 1}, {8, 4, 4}, {2, 4, 2}, {1, 1, 1}, {2, 0, 1}} {
		if got := processors(c.most, c.cpus); got != c.want {
			t.Errorf("processors(%d, %d) = %d, want %d", c.most, c.cpus, got, c.want)
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	s := &supervisor{plan: Plan{VM: vmm.Config{CPUs: 2}}}
	widen := s.narrow()
	if got := runtime.GOMAXPROCS(0); got != 2 {
		t.Errorf("%d processors while the VM runs, want 2", got)
	}
	widen()
	if got := runtime.GOMAXPROCS(0); got != 4 {
		t.Errorf("%d processors after that, want 4", got)
	}
}
