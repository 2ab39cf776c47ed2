package guest_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/vmm"
)

// joiner is a connection on which a second container comes into a guest.
type joiner struct {
	*guestVM
	disk string // its writable disk
}

// join connects once more, and makes the root of the container c2.
func (j *joiner) join(t *testing.T) *guestVM {
	t.Helper()
	vm := *j.guestVM
	var err error
	if vm.client, err = agent.Dial(j.ctx, j.sock, testToken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.client.Close() })
	if _, err := vm.client.Root(j.ctx, secondRoot()); err != nil {
		t.Fatal(err)
	}
	return &vm
}

func secondRoot() api.RootRequest {
	return api.RootRequest{ID: "c2", Root: api.Root{Format: "ext4", Devices: []string{"/dev/vdb"}, Writable: "/dev/vdc"}}
}

// second is a container in the root of c2.
func second(script string) api.StartRequest {
	r := sh(script)
	r.ID, r.OwnRoot, r.EtcOf = "c2", true, "c1"
	return r
}

// A second container has a root, a disk and processes of its own, the first one's
// network and names, and leaves its disk clean in each of its ends.
func TestRoots(t *testing.T) {
	b := testBench(t)
	j := joiner{disk: filepath.Join(t.TempDir(), "rw.img")}
	if err := rootfs.CreateWritable(j.disk, 64<<20, true); err != nil {
		t.Fatal(err)
	}
	j.guestVM = bootVM(t, vmm.Disk{Path: b.erofs, ReadOnly: true}, vmm.Disk{Path: b.ext4, ReadOnly: true}, vmm.Disk{Path: j.disk})
	j.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}})
	first, err := j.start(sh("mkdir /first; echo same network > /first/file; httpd -p 127.0.0.1:80 -h /first; head -c 4000000 /dev/zero > /large; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, readAll{first})
	t.Run("refused", j.refused)
	t.Run("own", j.own)
	t.Run("lost", j.lost)
	t.Run("files", j.filesOfRoot)
	t.Run("first lives", func(t *testing.T) {
		devices := "for d in 'b 254 0' 'b 254 32' 'b 43 0'; do rm -f /d; mknod /d $d && head -c 1 /d; done"
		r := j.runExec(changeExec(shExec(devices), func(r *api.ExecRequest) { r.Container = "c1" }))
		if strings.Count(r.stderr, "/d: Operation not permitted") != 3 {
			t.Errorf("devices of the guest: %+v", r)
		}
		if r := j.runExec(changeExec(shExec("ls /first"), func(r *api.ExecRequest) { r.Container = "c1" })); r.exit.Code != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// readAll takes a container's output until its end.
type readAll struct{ *agent.Stdio }

func (r readAll) Read([]byte) (int, error) {
	_, _, err := r.ReadFrame()
	return 0, err
}

func (j *joiner) refused(t *testing.T) {
	if _, err := j.client.Start(j.ctx, second("true")); err == nil {
		t.Error("started without a root")
	}
	bad := secondRoot()
	bad.Root.Devices = []string{"/dev/vdz"}
	if _, err := j.client.Root(j.ctx, bad); err == nil {
		t.Error("a disk that is not there")
	}
	if err := j.client.Release(j.ctx, "c2"); err == nil {
		t.Error("released what is not there")
	}
	bad.ID = "c1"
	if _, err := j.client.Root(j.ctx, bad); err == nil {
		t.Error("a root for a container that runs")
	}
}

func (j *joiner) own(t *testing.T) {
	vm := j.join(t)
	if _, err := vm.client.Root(j.ctx, secondRoot()); err == nil {
		t.Error("two roots for one container")
	}
	r := vm.run(second("ls /first; cat /etc/hostname; wget -qO- http://127.0.0.1/file; ps -o comm | grep -c sleep; echo kept > /file; exit 7"))
	if r.exit.Code != 7 || r.stdout != "box\nsame network\n0\n" {
		t.Errorf("%+v", r)
	}
	r = vm.run(second("for d in 'b 254 0' 'b 254 32' 'c 1 1' 'c 1 11'; do rm -f /d; mknod /d $d && head -c 1 /d; done; mknod /null c 1 3 && echo >/null && echo null; cat /dev/tty; rm -f /d /null"))
	if r.stdout != "null\n" || strings.Count(r.stderr, "/d: Operation not permitted") != 4 || !strings.Contains(r.stderr, "'/dev/tty': No such device or address") {
		t.Errorf("devices of the guest: %+v", r)
	}
	if err := vm.client.Release(j.ctx, "c2"); err != nil {
		t.Error(err)
	}
	j.clean(t)
	vm.client.Close()
}

// clean looks at the disk with other programs, as the VM runs on.
func (j *joiner) clean(t *testing.T) {
	t.Helper()
	run(t, tool(t, "e2fsck"), "-fn", j.disk)
	if out := run(t, tool(t, "dumpe2fs"), "-h", j.disk); strings.Contains(out, "needs_recovery") {
		t.Errorf("the journal of the disk is not empty:\n%s", out)
	}
}

// lost ends a connection under a container that runs, and comes again at once.
func (j *joiner) lost(t *testing.T) {
	vm := j.join(t)
	s, err := vm.start(second("echo more >> /file; cat /file; sleep 1000 & sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != "kept\nmore\n" {
		t.Fatalf("%q, %v", b, err)
	}
	vm.client.Close()
	again := j.join(t)
	if r := again.run(second("cat /file; ps -o comm | grep -c sleep")); r.stdout != "kept\nmore\n0\n" {
		t.Errorf("%+v", r)
	}
	if err := again.client.Release(j.ctx, "c2"); err != nil {
		t.Error(err)
	}
	j.clean(t)
	again.client.Close()
}

func (j *joiner) filesOfRoot(t *testing.T) {
	vm := j.join(t)
	f, err := agent.OpenFiles(j.ctx, j.sock, testToken, api.FilesRequest{Op: api.FileChanges, Root: "c2"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := f.Changes(func(c api.Change) error { got = append(got, string(c)); return nil }); err != nil {
		t.Fatal(err)
	}
	f.Close()
	// The image has links where a container has folders.
	if strings.Join(got, " ") != "C/dev A/file C/proc C/sys" {
		t.Errorf("changes: %q", got)
	}
	// One that is not read does not hold the root.
	f, err = agent.OpenFiles(j.ctx, j.sock, testToken, api.FilesRequest{Op: api.FileExport, Root: "c2"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Nor does one that looks at the first root, with copies of all mounts.
	other, err := agent.OpenFiles(j.ctx, j.sock, testToken, api.FilesRequest{Op: api.FileLayer})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := vm.client.Release(j.ctx, "c2"); err != nil {
		t.Error(err)
	}
	if _, err := agent.OpenFiles(j.ctx, j.sock, testToken, api.FilesRequest{Op: api.FileChanges, Root: "c2"}); err == nil {
		t.Error("files of a root that is released")
	}
	j.clean(t)
}
