package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// examine does the slow work on source: it unpacks, hashes and searches.
func examine(source string, c cache) (*facts, error) {
	f, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Stamps are taken before the content is read: a file that changes
	// meanwhile has another stamp afterwards and is read again.
	found := &facts{Format: factsFormat, Source: source}
	found.Stamps = append(found.Stamps, stampOf(source))
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxKernelFile {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", fi.Size(), int64(maxKernelFile), ErrFormat)
	}
	release, err := found.locate(f, fi.Size(), c)
	if err != nil {
		return nil, err
	}
	elf, err := os.Open(found.elfPath(c))
	if err != nil {
		return nil, err
	}
	defer elf.Close()
	fromELF, config, err := scanELF(elf, found.ELFSize)
	if err != nil {
		return nil, err
	}
	if release == "" {
		release = fromELF
	}
	if release == "" {
		return nil, fmt.Errorf("no Linux version in it: %w", ErrFormat)
	}
	found.Release = release
	return found, found.examineFeatures(elf, config)
}

// locate finds or makes the ELF and returns the release if a header names it.
func (f *facts) locate(file *os.File, size int64, c cache) (release string, err error) {
	isELF, err := checkELF(file)
	if err != nil {
		return "", err
	}
	if isELF {
		h := sha256.New()
		n, err := io.Copy(h, file)
		if err != nil {
			return "", err
		}
		f.ELFSize, f.Digest = n, hex.EncodeToString(h.Sum(nil))
		return "", nil
	}
	img, isImage, err := parseBzImage(file, size)
	if err != nil {
		return "", err
	}
	if !isImage {
		if err := foreignImage(file); err != nil {
			return "", err
		}
		return "", fmt.Errorf("neither an ELF vmlinux nor a bzImage: %w", ErrFormat)
	}
	f.ELF, f.ELFSize, f.Digest, err = c.unpack(io.NewSectionReader(file, img.offset, img.length))
	return img.release, err
}

// examineFeatures fills Modules and Features. The configuration inside the ELF,
// if there is one, cannot belong to another kernel, so it goes before a file.
func (f *facts) examineFeatures(elf io.ReaderAt, config map[string]string) error {
	ev := evidence{version: version(f.Release), config: config}
	dir := filepath.Dir(f.Source)
	var err error
	for _, d := range moduleDirs(dir, f.Release) {
		f.Stamps = append(f.Stamps, stampOf(d), stampOf(filepath.Join(d, "modules.builtin")))
		if ev.tree, err = openTree(d); err != nil {
			return err
		}
		if ev.tree != nil {
			f.ModuleDir = d
			break
		}
	}
	for _, p := range configFiles(dir, f.Release) {
		f.Stamps = append(f.Stamps, stampOf(p))
		if ev.config != nil {
			break
		}
		b, err := readBounded(p, maxConfig)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		ev.config = parseConfig(b)
	}
	f.Verifies = mayVerify(ev.config)
	if ev.config == nil {
		var markers []string
		for _, s := range specs() {
			markers = append(markers, s.marker)
		}
		if ev.markers, err = scanMarkers(elf, f.ELFSize, markers); err != nil {
			return err
		}
	}
	f.judgeAll(ev)
	return nil
}

// mayVerify reports whether a kernel may refuse a module that has lost its
// signature. What an unknown configuration says, nobody knows, and as little what
// a command line of its own does (module.sig_enforce, lockdown=).
func mayVerify(config map[string]string) bool {
	if config == nil {
		return true
	}
	for _, option := range []string{"MODULE_SIG_FORCE", "CMDLINE_BOOL", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY"} {
		if config[option] == "y" {
			return true
		}
	}
	return false
}

func (f *facts) judgeAll(ev evidence) {
	f.Features = map[Feature]featureFacts{}
	stamped := map[string]bool{}
	for name, spec := range specs() {
		ff := ev.judge(spec)
		f.Features[name] = ff
		for _, m := range ff.Modules {
			if !stamped[m.Path] {
				stamped[m.Path] = true
				f.Stamps = append(f.Stamps, stampOf(m.Path))
			}
		}
	}
}

// moduleDirs lists where the modules of a kernel in dir may be.
func moduleDirs(dir, release string) []string {
	dirs := []string{filepath.Join(dir, "lib", "modules", release)}
	if filepath.Base(dir) == release { // /usr/lib/modules/<release>/vmlinuz
		dirs = append(dirs, dir)
	}
	if dir == "/boot" {
		dirs = append(dirs, filepath.Join("/lib/modules", release))
	}
	return dirs
}

func configFiles(dir, release string) []string {
	return []string{filepath.Join(dir, "config"), filepath.Join(dir, "config-"+release)}
}
