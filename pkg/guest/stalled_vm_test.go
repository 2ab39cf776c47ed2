package guest_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/vmm"
)

// stallable is a way to the guest on which nothing comes back once it is stalled.
func (vm *guestVM) stallable() (sock string, stall func()) {
	vm.t.Helper()
	target := vm.sock
	sock = filepath.Join(filepath.Dir(target), "way")
	l, err := net.Listen("unix", sock)
	if err != nil {
		vm.t.Fatal(err)
	}
	stalled := make(chan struct{})
	vm.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			host, err := l.Accept()
			if err != nil {
				return
			}
			guest, err := net.Dial("unix", target)
			if err != nil {
				host.Close()
				return
			}
			vm.t.Cleanup(func() { guest.Close(); host.Close() })
			go io.Copy(guest, host)
			go io.Copy(host, untilStalled{guest, stalled})
		}
	}()
	return sock, func() { close(stalled) }
}

var errStalled = errors.New("stalled")

type untilStalled struct {
	io.Reader
	stalled chan struct{}
}

func (u untilStalled) Read(b []byte) (int, error) {
	n, err := u.Reader.Read(b)
	select {
	case <-u.stalled:
		return 0, errStalled
	default:
		return n, err
	}
}

// TestStalledDisk: the host of a second container answers for its disk no more. That
// holds up the end of the VM for a while, and nothing of the first one is lost.
func TestStalledDisk(t *testing.T) {
	b := testBench(t)
	mine, other := writable(t, 64<<20), writable(t, 64<<20)
	vm := bootVM(t, vmm.Disk{Path: b.erofs, ReadOnly: true}, vmm.Disk{Path: mine}, vmm.Disk{Path: b.ext4, ReadOnly: true})
	vm.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}, Writable: "/dev/vdb"})
	direct := vm.sock
	var stall func()
	vm.sock, stall = vm.stallable()
	disk := vm.openDisk(other, false)
	vm.sock = direct
	client, err := agent.Dial(vm.ctx, vm.sock, testToken)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Root(vm.ctx, api.RootRequest{ID: "c2", Root: api.Root{Format: "ext4", Devices: []string{"/dev/vdc"}, Writable: disk.Device()}}); err != nil {
		t.Fatal(err)
	}
	vm.says(sh("echo kept > /file; echo up; sleep 1000"), "up\n")
	second := *vm
	second.client = client
	r := sh("echo up; read x; head -c 1000000 /dev/zero > /file; echo written; sleep 1000")
	r.ID, r.OwnRoot, r.EtcOf, r.Stdin = "c2", true, "c1", true
	s := second.says(r, "up\n")
	stall()
	if err := s.WriteStdin([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != "written\n" {
		t.Fatalf("%q, %v", b, err)
	}
	go vm.client.Shutdown(vm.ctx)
	select {
	case <-vm.machine.Done():
	case <-time.After(18 * time.Second): // a supervisor waits for little more
		t.Error("the VM waits for the disk")
		vm.machine.Kill()
		<-vm.machine.Done()
	}
	if out := run(t, tool(t, "dumpe2fs"), "-h", mine); strings.Contains(out, "needs_recovery") {
		t.Errorf("the journal of the disk is not empty:\n%s", out)
	}
	run(t, tool(t, "e2fsck"), "-fn", mine)
	if got := run(t, tool(t, "debugfs"), "-R", "cat /upper/file", mine); !strings.HasSuffix(got, "kept\n") {
		t.Errorf("file holds %q", got)
	}
}

// says starts a container and waits for its first words.
func (vm *guestVM) says(r api.StartRequest, want string) *agent.Stdio {
	vm.t.Helper()
	s, err := vm.start(r)
	if err != nil {
		vm.t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != want {
		vm.t.Fatalf("%q, %v", b, err)
	}
	return s
}
