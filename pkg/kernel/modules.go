package kernel

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxModule bounds a decompressed module; the largest ones of a
	// distribution are below 10 MiB.
	maxModule = 64 << 20
	// maxModuleFiles bounds a walk over a modules directory; a distribution
	// has some 7000 modules.
	maxModuleFiles = 50_000
	// maxIndex bounds modules.builtin and its relatives.
	maxIndex = 16 << 20
)

// Module is a kernel module to load with init_module(2) or finit_module(2).
type Module struct {
	// Name is the canonical name, with underscores, as in /proc/modules.
	Name string
	// Path is the file, perhaps compressed.
	Path string

	whole bool // its signature may be asked for
}

// Open returns the module, decompressed. Reading fails when there is more of
// it than 64 MiB.
func (m Module) Open() (io.ReadCloser, error) {
	f, err := os.Open(m.Path)
	if err != nil {
		return nil, fmt.Errorf("open module %s: %w", m.Name, err)
	}
	r, err := moduleReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open module %s: %w", m.Name, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

// Content is the module as a guest is to load it: decompressed, and without what
// no guest needs, unless the kernel may insist on its signature.
func (m Module) Content() ([]byte, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.Name, err)
	}
	if m.whole && isSigned(b) {
		return b, nil
	}
	if stripped, err := strip(b); err == nil {
		return stripped, nil
	}
	return b, nil // of a kind that nobody knows: the kernel is to judge it
}

// isSigned reports whether a signature is appended to a module
// (include/linux/module_signature.h).
func isSigned(module []byte) bool {
	return bytes.HasSuffix(module, []byte("~Module signature appended~\n"))
}

// moduleReader reads a plain or compressed module.
func moduleReader(f io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(f, 1<<16)
	magic, err := br.Peek(6)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if bytes.HasPrefix(magic, []byte("\x7fELF")) {
		return &capped{r: br, left: maxModule}, nil
	}
	// Modules are packed with a dictionary of 2 MiB at most; see
	// scripts/Makefile.modinst.
	r, err := decompressor(magic, br, 16<<20)
	if err != nil {
		return nil, err
	}
	return &capped{r: r, left: maxModule}, nil
}

// capped is an io.LimitReader that tells a cut from an end.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var b [1]byte
		if n, err := c.r.Read(b[:]); n == 0 {
			return 0, err
		}
		return 0, fmt.Errorf("larger than %d bytes: %w", int64(maxModule), ErrFormat)
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	return n, err
}

// moduleFact is a Module with what has to be known to trust a cached list.
type moduleFact struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Digest string `json:"digest"` // sha256 of the file
}

// moduleTree is a lib/modules/<release> directory. Dependencies are read from
// the modules themselves, as depmod does: a distribution's package holds no
// modules.dep, it is made when the package is installed.
type moduleTree struct {
	dir     string
	builtin map[string]bool
	files   map[string]string   // canonical name -> path
	aliases map[string][]string // alias -> canonical names
	info    map[string]moduleInfo
}

// openTree reads dir; the result is nil when there is no such directory.
func openTree(dir string) (*moduleTree, error) {
	t := &moduleTree{dir: dir, builtin: map[string]bool{}, files: map[string]string{},
		aliases: map[string][]string{}, info: map[string]moduleInfo{}}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return nil, nil
	}
	if err := t.readBuiltin(); err != nil {
		return nil, err
	}
	if err := t.readAliases(); err != nil {
		return nil, err
	}
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; count > maxModuleFiles {
			return fmt.Errorf("more than %d files: %w", maxModuleFiles, ErrFormat)
		}
		if name, ok := moduleName(path); ok && d.Type().IsRegular() {
			// In lexical order updates/ comes after kernel/ and wins, as
			// with depmod.
			t.files[name] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list modules in %s: %w", dir, err)
	}
	return t, nil
}

// canonical maps the spellings of a module's name to one: virtio-rng.ko is
// virtio_rng in /proc/modules and in dependencies.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName takes the canonical name from the path of a .ko file.
func moduleName(path string) (string, bool) {
	name := filepath.Base(path)
	for _, ext := range []string{".xz", ".zst", ".gz"} {
		if n, ok := strings.CutSuffix(name, ext); ok {
			name = n
			break
		}
	}
	name, ok := strings.CutSuffix(name, ".ko")
	return canonical(name), ok && name != ""
}

// indexFile reads one of the small files of the tree; nil when it is absent.
func (t *moduleTree) indexFile(name string) ([]byte, error) {
	b, err := readBounded(filepath.Join(t.dir, name), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (t *moduleTree) readBuiltin() error {
	b, err := t.indexFile("modules.builtin")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			t.builtin[name] = true
		}
	}
	return nil
}

// readAliases reads the names under which soft dependencies may be asked for.
func (t *moduleTree) readAliases() error {
	b, err := t.indexFile("modules.builtin.modinfo")
	if err != nil {
		return err
	}
	for rec := range bytes.SplitSeq(b, []byte{0}) { // "crc32c_generic.alias=crc32c"
		key, alias, _ := strings.Cut(string(rec), "=")
		if mod, ok := strings.CutSuffix(key, ".alias"); ok {
			t.addAlias(alias, mod)
		}
	}
	if b, err = t.indexFile("modules.alias"); err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) { // "alias crc32c crc32c_intel"
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			t.addAlias(f[1], f[2])
		}
	}
	return nil
}

func (t *moduleTree) addAlias(alias, mod string) {
	a := canonical(alias)
	t.aliases[a] = append(t.aliases[a], canonical(mod))
}

// closure lists name and all that it needs, dependencies first.
func (t *moduleTree) closure(name string) ([]moduleFact, error) {
	w := walk{t: t, seen: map[string]bool{}}
	if err := w.visit(name); err != nil {
		return nil, err
	}
	return w.list, nil
}

type walk struct {
	t    *moduleTree
	seen map[string]bool // visited or being visited: a cycle ends here
	list []moduleFact
}

func (w *walk) visit(name string) error {
	if w.seen[name] || w.t.builtin[name] {
		return nil
	}
	w.seen[name] = true
	path, ok := w.t.files[name]
	if !ok {
		return fmt.Errorf("module %s is not in %s", name, w.t.dir)
	}
	info, err := w.t.read(name, path)
	if err != nil {
		return err
	}
	w.soft(info.pre)
	for _, dep := range info.depends {
		if err := w.visit(dep); err != nil {
			return fmt.Errorf("%s needs it: %w", name, err)
		}
	}
	w.list = append(w.list, moduleFact{Name: name, Path: path, Digest: info.digest})
	w.soft(info.post)
	return nil
}

// soft adds what is wanted but not linked against: libcrc32c, for one, cannot
// load where no crc32c is, and says so in a soft dependency. What is absent is
// left out, as modprobe does.
func (w *walk) soft(names []string) {
	for _, name := range names {
		mod, ok := w.t.provider(name)
		if !ok {
			continue
		}
		list := len(w.list)
		if err := w.visit(mod); err != nil {
			w.list = w.list[:list]
		}
	}
}

// provider finds the module or the built-in code behind a name or an alias.
// Of several the one that is built in wins, then the one for every CPU.
func (t *moduleTree) provider(name string) (string, bool) {
	has := func(mod string) bool { _, ok := t.files[mod]; return ok || t.builtin[mod] }
	if has(name) {
		return name, true
	}
	generic := strings.TrimPrefix(name, "crypto_") + "_generic"
	candidates := append([]string{generic}, t.aliases[name]...)
	if i := slices.IndexFunc(candidates, func(m string) bool { return t.builtin[m] }); i >= 0 {
		return candidates[i], true
	}
	if i := slices.IndexFunc(candidates, has); i >= 0 {
		return candidates[i], true
	}
	return "", false
}

// read returns what the module says of itself, and the digest of its file.
func (t *moduleTree) read(name, path string) (moduleInfo, error) {
	if info, ok := t.info[name]; ok {
		return info, nil
	}
	packed, err := readBounded(path, maxModule)
	if err != nil {
		return moduleInfo{}, err
	}
	r, err := moduleReader(bytes.NewReader(packed))
	if err != nil {
		return moduleInfo{}, fmt.Errorf("module %s: %w", path, err)
	}
	elf, err := io.ReadAll(r)
	if err != nil {
		return moduleInfo{}, fmt.Errorf("module %s: %w", path, err)
	}
	info, err := parseModinfo(elf)
	if err != nil {
		return moduleInfo{}, fmt.Errorf("module %s: %w", path, err)
	}
	sum := sha256.Sum256(packed)
	info.digest = hex.EncodeToString(sum[:])
	t.info[name] = info
	return info, nil
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: larger than %d bytes: %w", path, limit, ErrFormat)
	}
	return b, nil
}
