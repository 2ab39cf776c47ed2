// Package kernel reads guest kernels: it finds the ELF that a VMM boots, says
// what a kernel can do, and lists the modules that a guest has to load for it.
//
// It boots nothing and downloads nothing (scripts/download-kernel.sh does
// that); it knows no VMM, no image and no manager.
//
// Lifecycle: Open does the slow work (unpack a bzImage, read modules) once per
// kernel file and keeps the result in a cache directory; later calls check only
// that none of the files has changed. A Kernel is immutable and safe for
// concurrent use. Several processes may share one cache directory.
//
// Layout: the modules of a kernel file are looked for in
// lib/modules/<release> next to the file that its path resolves to, which is
// where scripts/download-kernel.sh puts them; a kernel in /boot or in its own
// /usr/lib/modules/<release> is understood too.
package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Errors that Open wraps.
var (
	// ErrFormat: the file is no kernel that a microVM can boot.
	ErrFormat = errors.New("not a usable kernel")
	// ErrArch: a kernel, but for another architecture.
	ErrArch = errors.New("wrong architecture")
	// ErrUnsupported: a feature that the kernel neither has built in nor
	// as a module.
	ErrUnsupported = errors.New("not supported by the guest kernel")
)

// Kernel is a guest kernel that was read by Open.
type Kernel struct {
	// Source is the kernel file, symbolic links resolved.
	Source string
	// Path is the uncompressed ELF to boot: Source itself, or a file in the
	// cache directory.
	Path string
	// Release is what uname -r prints in the guest, for example
	// "6.1.0-56-cloud-amd64".
	Release string
	// Digest is the sha256 of the ELF, in hex.
	Digest string
	// ModuleDir is the directory of the modules, "" when there is none.
	ModuleDir string

	features map[Feature]featureFacts
	verifies bool // it may insist on the signatures of modules
}

// notFoundError is what a user without a kernel sees.
type notFoundError struct{ path string }

func (e *notFoundError) Error() string {
	return fmt.Sprintf("kernel file not found: %s (run scripts/download-kernel.sh)", e.path)
}

func (e *notFoundError) Unwrap() error { return fs.ErrNotExist }

// Open reads the kernel at path: an ELF vmlinux or a bzImage. A bzImage is
// unpacked once into cacheDir, which is made when it is missing. The error
// wraps fs.ErrNotExist when there is no such file, ErrFormat when it is not a
// kernel and ErrArch when it is one for another architecture.
func Open(path, cacheDir string) (*Kernel, error) {
	source, err := resolve(path)
	if err != nil {
		return nil, err
	}
	cacheDir, err = filepath.Abs(cacheDir)
	if err != nil {
		return nil, fmt.Errorf("find kernel cache: %w", err)
	}
	c := cache{dir: cacheDir}
	if f, ok := c.load(source); ok {
		return f.kernel(c), nil
	}
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have done the work while this one waited.
	if f, ok := c.load(source); ok {
		return f.kernel(c), nil
	}
	f, err := examine(source, c)
	if err != nil {
		return nil, fmt.Errorf("read kernel %s: %w", path, err)
	}
	if err := c.store(f); err != nil {
		return nil, err
	}
	c.prune()
	return f.kernel(c), nil
}

func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find kernel %s: %w", path, err)
	}
	source, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &notFoundError{path: abs}
	}
	if err != nil {
		return "", fmt.Errorf("find kernel: %w", err)
	}
	fi, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("find kernel: %w", err)
	}
	if !fi.Mode().IsRegular() {
		// A FIFO would block for ever in open.
		return "", fmt.Errorf("read kernel %s: no regular file: %w", abs, ErrFormat)
	}
	return source, nil
}

// Support says how the kernel offers f.
func (k *Kernel) Support(f Feature) Support { return k.features[f].Support }

// Modules lists the modules that the features need, in load order:
// dependencies come first, nothing comes twice, and what is built in is left
// out. A feature that the kernel does not have is an error that wraps
// ErrUnsupported and names the feature and the kernel.
func (k *Kernel) Modules(features ...Feature) ([]Module, error) {
	var mods []Module
	seen := map[string]bool{}
	for _, f := range features {
		ff := k.features[f]
		if ff.Support == Missing {
			return nil, k.missing(f, ff)
		}
		// Each list is complete and in order, so joined lists are too.
		for _, m := range ff.Modules {
			if !seen[m.Name] {
				seen[m.Name] = true
				mods = append(mods, k.module(m))
			}
		}
	}
	return mods, nil
}

// ModulesNamed lists modules by their own names, for a machine that is no guest
// of ours, in the order and with the omissions of Modules. A name that the
// kernel has neither as a module nor built in is an error.
func (k *Kernel) ModulesNamed(names ...string) ([]Module, error) {
	tree, err := openTree(k.ModuleDir)
	if err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, fmt.Errorf("kernel %s (%s) has no modules", k.Release, k.Source)
	}
	w := walk{t: tree, seen: map[string]bool{}}
	for _, name := range names {
		if err := w.visit(canonical(name)); err != nil {
			return nil, err
		}
	}
	mods := make([]Module, len(w.list))
	for i, m := range w.list {
		mods[i] = k.module(m)
	}
	return mods, nil
}

func (k *Kernel) module(m moduleFact) Module {
	return Module{Name: m.Name, Path: m.Path, whole: k.verifies}
}

func (k *Kernel) missing(f Feature, ff featureFacts) error {
	if ff.Reason != "" {
		return fmt.Errorf("%s: %w %s (%s): %s", f, ErrUnsupported, k.Release, k.Source, ff.Reason)
	}
	return fmt.Errorf("%s: %w %s (%s)", f, ErrUnsupported, k.Release, k.Source)
}

// Fingerprint is a stable id of the kernel and of the content of all modules
// that Modules can return. What is made from them, an initramfs say, may be
// cached under it together with the features that were asked for.
func (k *Kernel) Fingerprint() string {
	var lines []string
	for f, ff := range k.features {
		line := fmt.Sprintf("%s %s", f, ff.Support)
		for _, m := range ff.Modules {
			line += fmt.Sprintf(" %s:%s", m.Name, m.Digest)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %t\n", k.Digest, k.Release, k.verifies)
	for _, l := range lines {
		fmt.Fprintln(h, l)
	}
	return hex.EncodeToString(h.Sum(nil))
}
