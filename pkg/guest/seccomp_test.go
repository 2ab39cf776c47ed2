package guest

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

func TestForFilter(t *testing.T) {
	const admin = 1 << unix.CAP_SYS_ADMIN
	own := capSets{bounding: 5, effective: 5, permitted: 5}
	for _, tt := range []struct {
		filter *api.Seccomp
		nnp    bool
		want   capSet
	}{{nil, false, 5}, {nil, true, 5}, {&api.Seccomp{}, true, 5}, {&api.Seccomp{}, false, 5 | admin}} {
		got := own.forFilter(tt.filter, tt.nnp)
		if got.effective != tt.want || got.permitted != tt.want || got.bounding != 5 || got.inheritable != 0 {
			t.Errorf("filter %v, no new privileges %v: %+v", tt.filter != nil, tt.nnp, got)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 7: false, 8: true, api.MaxSeccomp: true, api.MaxSeccomp + 8: false} {
		r := stageRequest("true")
		r.Seccomp = &api.Seccomp{Program: make([]byte, size)}
		if err := checkStart(r); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
