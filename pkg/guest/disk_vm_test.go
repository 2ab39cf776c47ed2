package guest_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
)

// privileged is a container that may mount the guest's devices.
func privileged(script string) api.StartRequest {
	r := sh(script)
	r.AllDevices = true
	caps := append(slices.Clone(r.Spec.Process.Capabilities.Bounding), "CAP_SYS_ADMIN")
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return r
}

// openDisk gives the guest a file as a disk.
func (vm *guestVM) openDisk(path string, readOnly bool) *agent.Disk {
	vm.t.Helper()
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		vm.t.Fatal(err)
	}
	d, err := agent.OpenDisk(vm.ctx, vm.sock, testToken, f, readOnly)
	if err != nil {
		vm.t.Fatal(err)
	}
	vm.t.Cleanup(func() { d.Close(); f.Close() })
	return d
}

// TestDiskRead: a disk that comes while the guest runs holds what the file does.
func TestDiskRead(t *testing.T) {
	vm := newVM(t)
	b := testBench(t)
	start := time.Now()
	d := vm.openDisk(b.erofs, true)
	t.Logf("%s after %v", d.Device(), time.Since(start))
	sum := strings.Fields(run(t, "sha256sum", b.erofs))[0]
	r := vm.run(privileged(fmt.Sprintf("sha256sum %s; mkdir /m; mount -t erofs -o ro %[1]s /m && cmp /m/bin/busybox /bin/busybox && cat /m/canary/file; umount /m; echo x > %[1]s",
		d.Device())))
	if !strings.HasPrefix(r.stdout, sum) || !strings.HasSuffix(r.stdout, "untouched\n") || r.exit.Code == 0 {
		t.Errorf("%+v", r)
	}
	if err := d.Detach(vm.ctx); err != nil {
		t.Error(err)
	}
}
