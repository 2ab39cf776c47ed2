package qemu

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

func TestTemplateKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := testConfig()
	base.Kernel, base.Initrd = file("kernel", "k"), file("initrd", "i")
	base.Disks = []vmm.Disk{{Path: "/a", ReadOnly: true}, {Path: "/b"}}
	base.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500, Device: "mp-0"}}
	binary, boot := file("qemu", "q"), "boot"
	key := func(change func(*vmm.Config, *platform)) string {
		t.Helper()
		c, p := base, platform{accel: accelTCG, sandbox: true, tscKHz: 2600000}
		c.Disks, c.NICs = slices.Clone(c.Disks), slices.Clone(c.NICs)
		if change != nil {
			change(&c, &p)
		}
		k, err := templateKey(binary, c, p, boot)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	want := key(nil)
	for name, change := range map[string]func(*vmm.Config, *platform){
		"id":      func(c *vmm.Config, _ *platform) { c.ID = "ba9876543210" },
		"disks":   func(c *vmm.Config, _ *platform) { c.Disks[0].Path = "/other" },
		"limits":  func(c *vmm.Config, _ *platform) { c.Disks[1].Limits.WriteOps = 100 },
		"sockets": func(c *vmm.Config, _ *platform) { c.VsockPath, c.Dir, c.ConsolePath = "/x", "/y", "/z" },
		"address": func(c *vmm.Config, _ *platform) { c.NICs[0].MAC = "02:00:00:00:00:02" },
		"device":  func(c *vmm.Config, _ *platform) { c.NICs[0].Device = "mp-1" },
		"counter": func(_ *vmm.Config, p *platform) { p.tscKHz = 2600001 },
	} {
		if key(change) != want {
			t.Errorf("%s: another template", name)
		}
	}
	for name, change := range map[string]func(*vmm.Config, *platform){
		"memory":      func(c *vmm.Config, _ *platform) { c.MemoryMiB++ },
		"cpus":        func(c *vmm.Config, _ *platform) { c.CPUs++ },
		"fewer disks": func(c *vmm.Config, _ *platform) { c.Disks = c.Disks[:1] },
		"writable":    func(c *vmm.Config, _ *platform) { c.Disks[0].ReadOnly = false },
		"MTU":         func(c *vmm.Config, _ *platform) { c.NICs[0].MTU++ },
		"no device":   func(c *vmm.Config, _ *platform) { c.NICs[0].Device = "" },
		"words":       func(c *vmm.Config, _ *platform) { c.Args = []string{"x"} },
		"sandbox":     func(_ *vmm.Config, p *platform) { p.sandbox = false },
		"kernel":      func(*vmm.Config, *platform) { file("kernel", "another") },
		"initrd":      func(*vmm.Config, *platform) { file("initrd", "another") },
		"qemu":        func(*vmm.Config, *platform) { file("qemu", "another") },
		"host's boot": func(*vmm.Config, *platform) { boot = "another" },
	} {
		if key(change) == want {
			t.Errorf("%s: the same template", name)
		}
	}
}

// fakeQEMU answers QMP as far as a template needs it: the state is the word.
func fakeQEMU(t *testing.T, conn *net.UnixConn, outcome string) {
	in, oob := bufio.NewReader(readWithFDs{t, conn}), func(s string) { io.WriteString(conn, s+"\n") }
	oob(`{"QMP":{}}`)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var cmd struct{ Execute string }
		if err := json.Unmarshal(line, &cmd); err != nil {
			t.Error(err)
		}
		if cmd.Execute == outcome {
			oob(`{"error":{"desc":"refused"}}`)
			continue
		}
		oob(`{"return":{}}`)
		switch cmd.Execute {
		case "qmp_capabilities":
			oob(`{"event":"VSERPORT_CHANGE","data":{"id":"x","open":false}}`)
			oob(`{"event":"VSERPORT_CHANGE","data":{"id":"x","open":true}}`)
		case "migrate":
			oob(`{"event":"MIGRATION","data":{"status":"active"}}`)
			if outcome == "die" {
				conn.Close()
				return
			}
			oob(`{"event":"MIGRATION","data":{"status":"` + outcome + `"}}`)
		}
	}
}

// readWithFDs writes a word to each descriptor that comes along.
type readWithFDs struct {
	t    *testing.T
	conn *net.UnixConn
}

func (r readWithFDs) Read(p []byte) (int, error) {
	oob := make([]byte, 64)
	n, m, _, _, err := r.conn.ReadMsgUnix(p, oob)
	if m > 0 {
		msgs, _ := unix.ParseSocketControlMessage(oob[:m])
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			r.t.Errorf("descriptors %v: %v", fds, err)
			return n, err
		}
		f := os.NewFile(uintptr(fds[0]), "state")
		defer f.Close()
		f.WriteString("state")
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func TestSaver(t *testing.T) {
	for outcome, want := range map[string]string{
		"completed": "",
		"failed":    "cannot save",
		"die":       "qemu has ended",
		"getfd":     "qmp getfd: refused",
	} {
		ours, theirs, err := channelPair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.FileConn(theirs)
		theirs.Close()
		if err != nil {
			t.Fatal(err)
		}
		go fakeQEMU(t, conn.(*net.UnixConn), outcome)
		f, err := os.Create(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		err = newSaver(ours).save(f)
		ours.Close()
		f.Close()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", outcome, err, want)
		}
		if b, _ := os.ReadFile(f.Name()); want == "" && string(b) != "state" {
			t.Errorf("%s: wrote %q", outcome, b)
		}
	}
}
