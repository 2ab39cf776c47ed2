// Package template keeps the states of guests that have booted and wait for
// their host, for the drivers whose VMs go on from there. It knows no VMM: a
// template is a directory whose files are its driver's.
//
// The first start that fits no template leaves a mark, the second makes the
// template: whoever starts one VM does not pay for it. One that could not be made
// or used is remembered for an hour, in which VMs boot.
//
// Nothing here is synced: a key is of one boot of the host, so that after a
// crash none leads to what is left.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

const (
	format       = 2
	suffixSeen   = ".seen"   // a VM has been started
	suffixState  = ".state"  // the template
	suffixFailed = ".failed" // making or using it did not work
	tempPrefix   = ".tmp-"

	// keep is how many templates there are at most; one has some 70 MB.
	keep = 4
	// MakeLimit bounds the boot of a guest that becomes a template. The start that
	// makes it has two minutes, and is to boot by itself when that fails.
	MakeLimit = 90 * time.Second
	// failureCounts is how long nobody tries again what did not work. Most of what
	// can be the reason passes, as a disk that is full, and VMMs tell of it in
	// words; what stays costs one start an hour at most MakeLimit.
	failureCounts = time.Hour
)

// ErrUnusable is wrapped by the error of a start from a template. Without one
// the VM may start.
var ErrUnusable = errors.New("template not usable")

// Key names what a guest's state depends on: this boot of the host, by whose
// clock the guest goes, files, and what the driver says, as JSON.
func Key(bootID string, files []string, rest any) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%d %s\n", format, bootID)
	for _, path := range files {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return "", &os.PathError{Op: "stat", Path: path, Err: err}
		}
		// Not the time of change, which is that of a new hard link too.
		fmt.Fprintf(h, "%q %d %d %d %d\n", path, st.Dev, st.Ino, st.Size, st.Mtim.Nano())
	}
	text, err := json.Marshal(rest)
	if err != nil {
		return "", err
	}
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// BootID names this boot of the host.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Store is a directory of templates, private to its user. Safe for concurrent
// use by many processes.
type Store struct{ Dir string }

func (s Store) path(key, suffix string) string { return filepath.Join(s.Dir, key+suffix) }

// Open returns the directory of the template for a VM, after making it if there
// has been such a VM before; "" if there is none. Another process may remove it
// at any time. An error is no reason not to start.
func (s Store) Open(key string, makeIt func(dir string) error) (string, error) {
	path, err := s.find(key)
	switch {
	case path != "" || err != nil:
		return path, err
	case s.failed(key):
		return "", nil
	case !s.seen(key):
		return "", s.mark(key, suffixSeen)
	}
	return s.create(key, makeIt)
}

// find returns a template that is there, else "".
func (s Store) find(key string) (string, error) {
	path := s.path(key, suffixState)
	now := time.Now()
	err := os.Chtimes(path, now, now) // the oldest is the first to go
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return path, nil
}

// create makes a template, unless another process is at it.
func (s Store) create(key string, makeIt func(dir string) error) (string, error) {
	lock, err := os.OpenFile(s.lock(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil
	}
	// Who looked before another process was done with it comes here as well.
	if path, err := s.find(key); path != "" || err != nil || s.failed(key) {
		return path, err
	}
	s.expire(keep - 1)
	temp, err := os.MkdirTemp(s.Dir, tempPrefix+"*") // mode 0700
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // nothing when all went well
	if err := makeIt(temp); err != nil {
		// First, as a mark needs room too.
		return "", errors.Join(err, os.RemoveAll(temp), s.Forget(key, err))
	}
	failpoint.Here(failpoint.TemplateMade)
	path := s.path(key, suffixState)
	if err := os.Rename(temp, path); err != nil {
		return "", err
	}
	failpoint.Here(failpoint.TemplateNamed)
	return path, nil
}

// Forget gives up on a template that cannot be made or used, for an hour, unless it
// was only interrupted.
func (s Store) Forget(key string, why error) error {
	if errors.Is(why, context.Canceled) {
		return nil
	}
	return errors.Join(s.remove(key+suffixState), s.mark(key, suffixFailed))
}

// Judge removes a template whose guest never said a word: it may be the template's
// fault. If it was not, another one is made.
func (s Store) Judge(key string, spoke bool) {
	if !spoke {
		_ = s.remove(key + suffixState) // gone already, or the next VM's problem
	}
}

// remove takes an entry out of its place first: half of a template is none. What
// was removed before is no error.
func (s Store) remove(name string) error {
	temp, err := os.MkdirTemp(s.Dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	err = os.Rename(filepath.Join(s.Dir, name), filepath.Join(temp, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s Store) seen(key string) bool {
	_, err := os.Lstat(s.path(key, suffixSeen))
	return err == nil
}

func (s Store) failed(key string) bool {
	info, err := os.Lstat(s.path(key, suffixFailed))
	return err == nil && counts(info)
}

// counts reports whether a failure of the time of a mark does still. One that is to
// come is of a clock that has been set back since.
func counts(mark fs.FileInfo) bool {
	age := time.Since(mark.ModTime())
	return age >= 0 && age < failureCounts
}

// mark leaves one, or makes it new.
func (s Store) mark(key, suffix string) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	path := s.path(key, suffix)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(f.Close(), os.Chtimes(path, now, now))
}
