package guest_test

import (
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	vm := newVM(t)
	for _, p := range vm.client.Hello().Phases {
		t.Logf("%-10s %v", p.Name, p.At)
	}
	start := time.Now()
	r := vm.run(sh("id; cat /proc/self/cgroup; ps; mount; cat /etc/hosts; ls -la / /dev; echo err >&2; exit 7"))
	t.Logf("%v\n%s\n%s\n%+v", time.Since(start), r.stdout, r.stderr, r.exit)
	if r.exit.Code != 7 || r.stderr != "err\n" {
		t.Errorf("%+v", r)
	}
}
