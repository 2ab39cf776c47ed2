package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// A template is the state of a guest that has booted and waits for its host to
// open the other end of the port. An emulated CPU spends most of a start on the
// boot of the kernel, which is the same each time, so VMs after the first go on
// from there. Nothing of a container is in a template: disks are empty while it
// is made, and their drivers are loaded afterwards, as is all that the host has
// to say.
//
// What VMs of a template have in common are the guest kernel's random secrets
// (the agent feeds its generator before the container starts). That is for
// emulation only, which is no security boundary anyway.
//
// The first start that fits no template leaves a mark, the second makes the
// template: whoever starts one VM does not pay for it.
type templates struct{ dir string }

const (
	templateFormat = 1
	suffixSeen     = ".seen"   // a VM has been started
	suffixState    = ".state"  // the template
	suffixFailed   = ".failed" // making or using it did not work
	tempPrefix     = ".tmp-"

	// maxTemplates is how many are kept; one has some 70 MB.
	maxTemplates = 4
	// makeLimit bounds the boot of a guest that becomes a template.
	makeLimit = time.Minute
)

// templateKey names what a guest's state depends on: this boot of the host, by
// whose clock the guest goes, the files, and QEMU's command line.
func templateKey(binary string, c vmm.Config, p platform, bootID string) (string, error) {
	c.ID = ""
	p.role, p.tscKHz = makeState, 0
	args, err := arguments(c, p)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %s\n", templateFormat, bootID)
	for _, path := range []string{binary, c.Kernel, c.Initrd} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return "", &os.PathError{Op: "stat", Path: path, Err: err}
		}
		// Not the time of change, which is that of a new hard link too.
		fmt.Fprintf(h, "%q %d %d %d %d\n", path, st.Dev, st.Ino, st.Size, st.Mtim.Nano())
	}
	fmt.Fprintf(h, "%q\n", args)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func (t templates) path(key, suffix string) string { return filepath.Join(t.dir, key+suffix) }

// open opens the template for a VM, after making it if there has been such a VM
// before; nil if there is none. An error is no reason not to start.
func (t templates) open(key string, makeIt func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(t.path(key, suffixState), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err == nil {
		now := time.Now()
		_ = os.Chtimes(f.Name(), now, now) // the oldest is the first to go
		return f, nil
	}
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case t.marked(key, suffixFailed):
		return nil, nil
	case !t.marked(key, suffixSeen):
		return nil, t.mark(key, suffixSeen)
	}
	return t.create(key, makeIt)
}

// create makes a template, unless another process is at it.
func (t templates) create(key string, makeIt func(*os.File) error) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(t.dir, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil
	}
	t.expire(maxTemplates - 1)
	f, err := os.CreateTemp(t.dir, tempPrefix+"*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // fails when all went well
	if err := makeIt(f); err != nil {
		f.Close()
		return nil, errors.Join(err, t.forget(key, err))
	}
	// Not synced: after a crash of the host no key leads here.
	if err := os.Rename(f.Name(), t.path(key, suffixState)); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// forget gives up on a template that cannot be made or used, unless it was only
// interrupted.
func (t templates) forget(key string, why error) error {
	if errors.Is(why, context.Canceled) {
		return nil
	}
	err := os.Remove(t.path(key, suffixState))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, t.mark(key, suffixFailed))
}

// judge removes a template whose guest never said a word: it may be the template's
// fault. If it was not, another one is made.
func (t templates) judge(key string, spoke bool) {
	if !spoke {
		_ = os.Remove(t.path(key, suffixState)) // gone already, or the next VM's problem
	}
}

func (t templates) marked(key, suffix string) bool {
	_, err := os.Lstat(t.path(key, suffix))
	return err == nil
}

func (t templates) mark(key, suffix string) error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(t.path(key, suffix), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// expire keeps so many templates, those that were used last, and removes what a
// crash has left and marks that are a month old. The lock is held. A VM that is
// starting has its template open.
func (t templates) expire(keep int) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	var states []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch ext := filepath.Ext(e.Name()); {
		case ext == suffixState:
			states = append(states, info)
		case strings.HasPrefix(e.Name(), tempPrefix),
			(ext == suffixSeen || ext == suffixFailed) && time.Since(info.ModTime()) > 30*24*time.Hour:
			os.Remove(filepath.Join(t.dir, e.Name()))
		}
	}
	slices.SortFunc(states, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, s := range states[min(keep, len(states)):] {
		os.Remove(filepath.Join(t.dir, s.Name()))
	}
}
