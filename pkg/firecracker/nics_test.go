package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// asNobody runs this test once more as a user without privilege, and reports
// that it did. Only root can.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "fc") // which others can reach, unlike a test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := copyProgram(program); err != nil {
		t.Fatal(err)
	}
	again := exec.Command(program, "-test.v", "-test.run=^"+t.Name()+"$")
	again.Dir = "/"
	again.Env = append(os.Environ(), "TMPDIR="+dir)
	again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var out bytes.Buffer
	again.Stdout, again.Stderr = &out, &out
	err = withOpenTUN(dir, again.Run)
	t.Logf("as nobody:\n%s", &out)
	if err != nil {
		t.Error(err)
	}
	return true
}

// withOpenTUN runs f on a thread for whose children /dev/net/tun is open to
// everybody, as udev makes it: what made this machine's /dev may not have.
func withOpenTUN(dir string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread's mounts end with it
		node := filepath.Join(dir, "tun")
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 200)))
		}
		if err == nil {
			err = os.Chmod(node, 0o666)
		}
		if err == nil {
			err = unix.Mount(node, "/dev/net/tun", "", unix.MS_BIND, "")
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// copyProgram copies this program to where everybody may run it.
func copyProgram(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// networkDriver is a driver on a fake firecracker, with a guard.
func networkDriver(t *testing.T, mode string) *Driver {
	t.Helper()
	d := newDriver(t, mode)
	d.o.Guard = []string{"/proc/self/exe", guardVerb}
	d.o.NoJail = true
	return d
}

func oneNIC() []vmm.NIC { return []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500}} }

// TestNetworkByDescriptors: a supervisor names the VM's directories by
// descriptors of its own where their paths are too long for sockets, and the VMM
// is in a user namespace from which it may not look there.
func TestNetworkByDescriptors(t *testing.T) {
	asNobody(t)
	c := setup(t)
	deep := filepath.Join(filepath.Dir(c.Dir), strings.Repeat("deep/", 40))
	if err := os.MkdirAll(filepath.Join(deep, "vmm"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(deep)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/%d/fd/%d/", os.Getpid(), dir.Fd())
	c.Dir, c.VsockPath, c.NICs = short+"vmm", short+"vsock.sock", oneNIC()
	m := start(t, networkDriver(t, "ok"), c)
	if m.(vmm.Linker).Link(0) == nil {
		t.Error("the NIC has no link")
	}
	for _, f := range []string{"vsock.sock", "vmm/firecracker.sock", "vmm/firecracker.log"} {
		if info, err := os.Stat(filepath.Join(deep, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	order(t, c, "print hello", "exit 0")
	<-m.Done()
	if e := m.Exit(); e != (vmm.Exit{}) {
		t.Errorf("exit %+v", e)
	}
	c.Dir = filepath.Join(deep, "vmm")
	if got := names(t, c); got != "" {
		t.Errorf("afterwards there are: %s", got)
	}
}

// TestNetworkDiesWithItsParent: in a user namespace, too.
func TestNetworkDiesWithItsParent(t *testing.T) {
	asNobody(t)
	testDiesWithItsParent(t, "network")
}

// TestFailedNetworks: what goes wrong after the guard's first report, or in it,
// is an error of the start that says what it was.
func TestFailedNetworks(t *testing.T) {
	asNobody(t)
	none := filepath.Join(t.TempDir(), "none")
	for name, test := range map[string]struct {
		change func(*guardSpec)
		want   string
		is     error
	}{
		"no program":    {func(s *guardSpec) { s.Command = []string{none} }, "start " + none, fs.ErrNotExist},
		"no permission": {func(s *guardSpec) { s.Command = []string{"/etc"} }, "start /etc", fs.ErrPermission},
		"bad device":    {func(s *guardSpec) { s.Taps[0].Name = strings.Repeat("x", 16) }, "make the TAP device", unix.EINVAL},
		"two of a name": {func(s *guardSpec) { s.Taps = append(s.Taps, s.Taps[0]) }, "there is a device of that name", unix.EBUSY},
		"orphan":        {func(s *guardSpec) { s.Parent = 1 << 30 }, "the driver has ended", nil},
	} {
		before := openFiles(t)
		s := guardSpec{Taps: taps(vmm.Config{NICs: oneNIC()}, os.Geteuid()), Command: []string{"/bin/true"}, Exec: true, Parent: os.Getpid()}
		test.change(&s)
		p, err := startGuard(t.Context(), []string{"/proc/self/exe", guardVerb}, s, command{unprivileged: true})
		if err == nil {
			p.kill()
			t.Errorf("%s: it starts", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v, want %q and %v", name, err, test.want, test.is)
		}
		if left := newlyOpen(t, before); left != nil {
			t.Errorf("%s: left open: %v", name, left)
		}
	}
}

// TestReports: what a guard sends that it should not leaves no descriptor here.
func TestReports(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	one := int(null.Fd())
	for name, test := range map[string]struct {
		text string
		fds  int
		want string
	}{
		"good":         {"{}", 1, ""},
		"an error":     {`{"Error":"no","Errno":1}`, 1, "no"},
		"too few":      {"{}", 0, "sent 0 sockets of network devices, not 1"},
		"too many":     {"{}", 2, "sent 2 sockets of network devices, not 1"},
		"far too many": {"{}", 100, "too long"},
		"too long":     {`{"Error":"` + strings.Repeat("x", maxReport) + `"}`, 1, "too long"},
		"no report":    {"x", 1, "invalid character"},
	} {
		before := openFiles(t)
		l, theirs, err := newGuardLink(guardSpec{Taps: make([]tap, 1)})
		if err != nil {
			t.Fatal(err)
		}
		fds := make([]int, test.fds)
		for i := range fds {
			fds[i] = one
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		if err := unix.Sendmsg(int(theirs.Fd()), []byte(test.text), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		err = l.begin()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		l.closeLinks()
		l.conn.Close()
		theirs.Close()
		if left := newlyOpen(t, before); left != nil {
			t.Errorf("%s: left open: %v", name, left)
		}
	}
}

// openFiles are this process's descriptors: their numbers, and what each is.
func openFiles(t *testing.T) map[string]string {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil { // not the one of the list itself
			out[fd] = to
		}
	}
	return out
}

// newlyOpen are the descriptors that were not there before. A number of those that
// were is no measure: an earlier test's may be closed at any time.
func newlyOpen(t *testing.T, before map[string]string) []string {
	t.Helper()
	var all []string
	for fd, to := range openFiles(t) {
		if before[fd] != to {
			all = append(all, fd+" -> "+to)
		}
	}
	return all
}

func TestForbidden(t *testing.T) {
	none, ubuntu := t.TempDir(), t.TempDir()
	for name, value := range map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1\n", "kernel/unprivileged_userns_clone": "1\n", "user/max_user_namespaces": "0\n"} {
		path := filepath.Join(ubuntu, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(value), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	const found = "forbids (kernel.apparmor_restrict_unprivileged_userns=1, user.max_user_namespaces=0): use --network none"
	eperm := &guardError{"make it: operation not permitted", unix.EPERM}
	for _, test := range []struct {
		err     error
		sysctls string
		want    string
	}{
		{eperm, ubuntu, found},
		{fmt.Errorf("start the guard: %w", unix.ENOSPC), ubuntu, found},
		{eperm, none, "forbids: use --network none"},
		{&guardError{"make it: no such file", unix.ENOENT}, ubuntu, ""},
		{errors.New("the driver has ended"), ubuntu, ""},
	} {
		err := forbidden(test.err, test.sysctls)
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) || test.want == "" && err != test.err {
			t.Errorf("%v: %v, want %q", test.err, err, test.want)
		}
	}
}

func TestCheckNICs(t *testing.T) {
	device := vmm.Config{NICs: []vmm.NIC{{Device: "mp-0"}}}
	if err := checkNICs(device, nil); err == nil || !strings.Contains(err.Error(), "takes a guard") {
		t.Errorf("without a guard: %v", err)
	}
	if err := checkNICs(device, []string{"guard"}); (err == nil) != (os.Geteuid() == 0) {
		t.Errorf("as user %d: %v", os.Geteuid(), err)
	}
}
