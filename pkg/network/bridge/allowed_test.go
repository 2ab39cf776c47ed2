package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestAllowed: bridge networks are not for who asks for nothing where nobody would
// be reached, and what the kernel can is tried once.
func TestAllowed(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	allowed := func(want string) {
		t.Helper()
		l.host.do(func() error {
			why, err := l.h.Allowed()
			if why != want {
				t.Errorf("%q, want %q", why, want)
			}
			return err
		})
	}
	tried := filepath.Join(filepath.Dir(l.h.Lock), "bridge-tried")
	allowed("")
	first, err := os.Stat(tried)
	if err != nil {
		t.Fatal(err)
	}
	allowed("")
	l.wantSnapshot("after it was asked", before)
	if again, err := os.Stat(tried); err != nil || again.ModTime() != first.ModTime() {
		t.Errorf("it was tried twice: %v", err)
	}
	// Of another kernel, another version, or another user namespace.
	if err := os.WriteFile(tried, []byte("version_0, user namespace 1, boot 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed("")
	if now, err := circumstances(); err != nil {
		t.Error(err)
	} else if got, err := os.ReadFile(tried); err != nil || string(got) != now {
		t.Errorf("%q, %v, want %q", got, err, now)
	}
	l.host.run("nft add table ip filter")
	l.host.run("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
	allowed("another firewall drops what guests send: ip filter FORWARD")
}

// TestLockDirectory: a lock that others could keep is none, and without a lock there
// are no bridge networks.
func TestLockDirectory(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	made := func(name string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	others, theirs, link := made("others", 0o777), made("theirs", 0o700), filepath.Join(dir, "link")
	group, ours := made("group", 0o770), made("ours", 0o755)
	if err := errors.Join(os.Chown(theirs, 65534, 65534), os.Symlink(ours, link), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		ours: "", filepath.Join(dir, "new", "one"): "",
		others: "is written by nobody else", group: "is written by nobody else",
		theirs: "belongs to user 0", link: "is not a directory", filepath.Join(dir, "file"): "not a directory",
	} {
		h := l.h
		h.Lock = filepath.Join(path, "bridge.lock")
		l.host.do(func() error {
			why, err := h.Allowed()
			if (why == "") != (want == "") || !strings.Contains(why, want) {
				t.Errorf("%s: %q, want %q", path, why, want)
			}
			return err
		})
		err := l.host.try(func() error { return h.Release(testNetwork(1)) })
		if (err == nil) != (want == "") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestPasses: what the kernel lacks is a reason, what it has too little of now is none.
func TestPasses(t *testing.T) {
	for err, want := range map[error]bool{
		nil: false, unix.EPERM: false, unix.EROFS: false, unix.EOPNOTSUPP: false, fs.ErrNotExist: false,
		unix.EMFILE: true, unix.ENOBUFS: true, netlink.ErrDumpInterrupted: true,
	} {
		if got := passes(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
		if err == nil {
			continue
		}
		if got := passes(fmt.Errorf("list: %w", errors.Join(err, errors.New("another")))); got != want {
			t.Errorf("wrapped %v: %v", err, got)
		}
	}
}
