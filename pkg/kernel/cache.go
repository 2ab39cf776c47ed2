package kernel

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// factsFormat changes whenever an older program's facts would mislead.
const factsFormat = 3

const maxFacts = 1 << 20

// facts is what is remembered of a kernel file.
type facts struct {
	Format    int                      `json:"format"`
	Source    string                   `json:"source"`
	Stamps    []stamp                  `json:"stamps"`
	ELF       string                   `json:"elf,omitempty"` // file in the cache; "" for Source itself
	ELFSize   int64                    `json:"elfSize"`
	Digest    string                   `json:"digest"`
	Release   string                   `json:"release"`
	ModuleDir string                   `json:"moduleDir,omitempty"`
	Features  map[Feature]featureFacts `json:"features"`
	// Verifies says that the kernel may insist on the signatures of modules.
	Verifies bool `json:"verifies,omitempty"`
}

// stamp is the state of a file that the facts rest on. The change time is part
// of it because cp -p and touch can set the modification time, not that one.
type stamp struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"` // -1: there is no such file
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	MTime int64  `json:"mtime"`
	CTime int64  `json:"ctime"`
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{Path: path, Size: -1}
	}
	return stamp{Path: path, Size: st.Size, Dev: st.Dev, Ino: st.Ino, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}
}

func (f *facts) elfPath(c cache) string {
	if f.ELF == "" {
		return f.Source
	}
	return filepath.Join(c.dir, f.ELF)
}

func (f *facts) kernel(c cache) *Kernel {
	return &Kernel{Source: f.Source, Path: f.elfPath(c), Release: f.Release, Digest: f.Digest,
		ModuleDir: f.ModuleDir, features: f.Features, verifies: f.Verifies}
}

// cache is a directory with unpacked kernels, named by content, and with facts,
// named by the path of the kernel file.
type cache struct{ dir string }

const (
	elfPrefix   = "vmlinux-"
	factsPrefix = "facts-"
	tempPrefix  = ".tmp-"
)

func (c cache) factsPath(source string) string {
	sum := sha256.Sum256([]byte(source))
	return filepath.Join(c.dir, factsPrefix+hex.EncodeToString(sum[:8])+".json")
}

func (c cache) lockPath() string { return filepath.Join(c.dir, ".lock") }

// load returns the facts about source if they still hold.
func (c cache) load(source string) (*facts, bool) {
	b, err := readBounded(c.factsPath(source), maxFacts)
	if err != nil {
		return nil, false
	}
	f := &facts{}
	if json.Unmarshal(b, f) != nil || f.Format != factsFormat || f.Source != source || len(f.Stamps) == 0 {
		return nil, false
	}
	if f.ELF != "" && f.ELF != elfPrefix+f.Digest {
		return nil, false
	}
	for _, s := range f.Stamps {
		if stampOf(s.Path) != s {
			return nil, false
		}
	}
	if fi, err := os.Stat(f.elfPath(c)); err != nil || fi.Size() != f.ELFSize {
		return nil, false
	}
	return f, true
}

// lock makes the directory and keeps other processes from doing the same work.
func (c cache) lock() (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make kernel cache: %w", err)
	}
	f, err := os.OpenFile(c.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock kernel cache: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock kernel cache %s: %w", c.dir, err)
	}
	// With the lock held, every temporary file is one that a crash left.
	c.removeTemp()
	return func() { f.Close() }, nil
}

func (c cache) removeTemp() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(c.dir, e.Name())) // harmless if it stays
		}
	}
}

// store remembers f. The lock is held.
func (c cache) store(f *facts) error {
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write kernel facts: %w", err)
	}
	err = c.replace(func(w io.Writer) (string, error) {
		_, err := w.Write(b)
		return filepath.Base(c.factsPath(f.Source)), err
	})
	if err != nil {
		return fmt.Errorf("write kernel facts: %w", err)
	}
	return nil
}

// unpack writes a bzImage's payload to the cache. The lock is held.
func (c cache) unpack(payload *io.SectionReader) (name string, size int64, digest string, err error) {
	err = c.replace(func(w io.Writer) (string, error) {
		h := sha256.New()
		if size, err = unpack(io.MultiWriter(w, h), payload, maxELF); err != nil {
			return "", err
		}
		digest = hex.EncodeToString(h.Sum(nil))
		name = elfPrefix + digest
		return name, nil
	})
	if err != nil {
		return "", 0, "", err
	}
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		return "", 0, "", err
	}
	defer f.Close()
	if ok, err := checkELF(f); err != nil || !ok {
		_ = os.Remove(f.Name()) // nobody refers to it
		if err == nil {
			err = fmt.Errorf("the payload is no ELF file: %w", ErrFormat)
		}
		return "", 0, "", err
	}
	return name, size, digest, nil
}

// replace writes a file of the cache whose name is known at the end.
func (c cache) replace(write func(io.Writer) (name string, err error)) error {
	f, err := os.CreateTemp(c.dir, tempPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails when all went well
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	name, err := write(w)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// A crash must not leave a complete name on an incomplete file: its size
	// would be right and its content zeros.
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(c.dir, name))
}

// prune removes what nobody needs any more: kernels are replaced, and each is
// some 50 MB. What cannot be removed stays. The lock is held.
func (c cache) prune() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	keep := c.inUse(entries)
	for _, e := range entries {
		name := e.Name()
		if cached(name) && !keep[name] {
			_ = os.Remove(filepath.Join(c.dir, name)) // harmless if it stays
		}
	}
}

// cached reports that a name in the directory is the cache's: other kernels are
// kept there, too.
func cached(name string) bool {
	return strings.HasPrefix(name, elfPrefix) || strings.HasPrefix(name, factsPrefix)
}

// inUse are the names of what kernel files rest on, and of kernels that somebody
// holds, whose files may be gone.
func (c cache) inUse(entries []fs.DirEntry) map[string]bool {
	keep := map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), elfPrefix) && held(filepath.Join(c.dir, e.Name())) {
			keep[e.Name()] = true
		}
		if !strings.HasPrefix(e.Name(), factsPrefix) {
			continue
		}
		var f facts
		b, err := readBounded(filepath.Join(c.dir, e.Name()), maxFacts)
		if err != nil || json.Unmarshal(b, &f) != nil {
			continue
		}
		if _, ok := c.load(f.Source); ok {
			keep[e.Name()], keep[f.ELF] = true, true
		}
	}
	return keep
}

// held reports whether somebody has a lock on a file (fcntl(2), F_OFD_GETLK), as
// those have who boot a VM from it and may do so again. In doubt it is held.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk)
	return err != nil || lk.Type != unix.F_UNLCK
}
