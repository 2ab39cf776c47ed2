package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

func TestTemplatesOpen(t *testing.T) {
	ts := templates{filepath.Join(t.TempDir(), "templates")}
	made := 0
	makeIt := func(f *os.File) error {
		made++
		_, err := f.WriteString("state")
		return err
	}
	for i, want := range []string{"", "state", "state"} {
		f, err := ts.open("key", makeIt)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		if f != nil {
			got, _ = io.ReadAll(f)
			f.Close()
		}
		if string(got) != want {
			t.Errorf("start %d: %q, want %q", i+1, got, want)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	ts.judge("key", true)
	info, err := os.Stat(ts.path("key", suffixState))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	ts.judge("key", false) // of a guest that does nothing
	if f, err := ts.open("key", makeIt); err != nil || made != 2 {
		t.Errorf("after a bad one: %v, %v, made %d times", f, err, made)
	} else {
		f.Close()
	}
}

func TestTemplateThatCannotBeMade(t *testing.T) {
	for _, test := range []struct {
		err   error
		tries int
	}{
		{errors.New("no"), 1},
		{context.Canceled, 2}, // says nothing of the template
	} {
		ts := templates{t.TempDir()}
		tries := 0
		for range 4 {
			f, err := ts.open("key", func(*os.File) error {
				if tries++; tries == 2 {
					return nil
				}
				return test.err
			})
			if f != nil {
				f.Close()
			}
			if err != nil && !errors.Is(err, test.err) {
				t.Error(err)
			}
		}
		if tries != test.tries {
			t.Errorf("%v: %d tries, want %d", test.err, tries, test.tries)
		}
		if left, _ := filepath.Glob(filepath.Join(ts.dir, tempPrefix+"*")); len(left) > 0 {
			t.Errorf("%v: left %q", test.err, left)
		}
	}
}

// A start does not wait for another one's template.
func TestTemplateInTheMaking(t *testing.T) {
	ts := templates{t.TempDir()}
	if err := ts.mark("key", suffixSeen); err != nil {
		t.Fatal(err)
	}
	f, err := ts.open("key", func(*os.File) error {
		if f, err := ts.open("key", nil); f != nil || err != nil {
			t.Errorf("the other: %v, %v", f, err)
		}
		return nil
	})
	if err != nil || f == nil {
		t.Fatalf("%v, %v", f, err)
	}
	f.Close()
}

func TestTemplatesExpire(t *testing.T) {
	ts := templates{t.TempDir()}
	old := time.Now().Add(-40 * 24 * time.Hour)
	for i, name := range []string{"c.state", "b.state", "a.state", tempPrefix + "1", "new.seen", "old.seen", "old.failed", "other"} {
		path := filepath.Join(ts.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		if strings.HasPrefix(name, "old") {
			at = old
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	ts.expire(2)
	var left []string
	entries, _ := os.ReadDir(ts.dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"b.state", "c.state", "new.seen", "other"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
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
