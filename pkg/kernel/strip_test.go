package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStripReal strips the modules of the distribution's kernel, and compares
// what readelf sees and what the relocations say before and after.
func TestStripReal(t *testing.T) {
	k, _ := openReal(t)
	mods, err := k.Modules(VirtioMMIO, VirtioBlk, VirtioConsole, VirtioVsock, EROFS, Overlay)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mods {
		whole := wholeModule(t, m)
		b, err := strip(whole)
		if err != nil {
			t.Errorf("%s: %v", m.Name, err)
			continue
		}
		if len(b) >= len(whole) {
			t.Errorf("%s has %d bytes, and had %d", m.Name, len(b), len(whole))
		}
		compareModules(t, m.Name, whole, b)
		path := filepath.Join(t.TempDir(), "m.ko")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("readelf", "--all", "--wide", path).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("Warning")) || bytes.Contains(out, []byte("Error")) {
			t.Errorf("%s: %v: %s", m.Name, err, out)
		}
		content, err := m.Content()
		if err != nil || bytes.Equal(content, b) == k.verifies {
			t.Errorf("%s: the guest gets %d bytes, the kernel verifies: %v, %v", m.Name, len(content), k.verifies, err)
		}
	}
}

func wholeModule(t *testing.T, m Module) []byte {
	t.Helper()
	r, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// section is what must not change of one.
type section struct {
	kind            elf.SectionType
	flags           elf.SectionFlag
	align, entsize  uint64
	content         string
	link, info      string // names of sections
	relocatedSymbol []string
}

func compareModules(t *testing.T, name string, old, stripped []byte) {
	t.Helper()
	was, is := sectionsOf(t, old), sectionsOf(t, stripped)
	for n := range was {
		if needless(n) != (is[n].kind == 0 && was[n].kind != 0) {
			t.Errorf("%s: section %s: needless %v, there: %v", name, n, needless(n), is[n].kind)
		}
	}
	for n, s := range is {
		w := was[n]
		if s.kind != w.kind || s.flags != w.flags || s.align != w.align || s.entsize != w.entsize || s.link != w.link || s.info != w.info {
			t.Errorf("%s: section %s is %v, was %v", name, n, s, w)
		}
		if s.kind != elf.SHT_SYMTAB && s.kind != elf.SHT_RELA && s.content != w.content {
			t.Errorf("%s: section %s has changed", name, n)
		}
		if !slices.Equal(s.relocatedSymbol, w.relocatedSymbol) {
			t.Errorf("%s: section %s is relocated against other symbols", name, n)
		}
	}
}

func sectionsOf(t *testing.T, b []byte) map[string]section {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	nameOf := func(n uint32) string { return f.Sections[n].Name }
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	out, code := map[string]section{}, make([][]byte, len(f.Sections))
	for i, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL {
			if code[i], err = s.Data(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range f.Sections {
		data := code[i]
		o := section{kind: s.Type, flags: s.Flags, align: s.Addralign, entsize: s.Entsize, link: nameOf(s.Link)}
		if s.Type == elf.SHT_RELA {
			o.info = nameOf(s.Info)
			for i := 0; i+24 <= len(data); i += 24 {
				number := f.ByteOrder.Uint32(data[i+12:])
				if number == 0 { // one that was dropped
					continue
				}
				sym := symbols[number-1]
				if sym.Name == "__fentry__" {
					noCall(code[s.Info], f.ByteOrder.Uint64(data[i:]))
					continue
				}
				at := ""
				if int(sym.Section) < len(f.Sections) {
					at = nameOf(uint32(sym.Section))
				}
				o.relocatedSymbol = append(o.relocatedSymbol, sym.Name+"@"+at)
			}
		}
		out[s.Name] = o
	}
	for i, s := range f.Sections { // without the calls
		o := out[s.Name]
		o.content = string(code[i])
		out[s.Name] = o
	}
	return out
}

// A module that is not understood is left as it is.
func TestStripRefuses(t *testing.T) {
	k, _ := openReal(t)
	mods, err := k.Modules(VirtioMMIO)
	if err != nil {
		t.Fatal(err)
	}
	whole := wholeModule(t, mods[0])
	for name, change := range map[string]func(b []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"no ELF":           func(b []byte) []byte { b[0] = 0; return b },
		"cut":              func(b []byte) []byte { return b[:len(b)/2] },
		"header alone":     func(b []byte) []byte { return b[:64] },
		"a program":        func(b []byte) []byte { b[16] = byte(elf.ET_EXEC); return b },
		"no sections":      func(b []byte) []byte { b[60], b[61] = 0, 0; return b },
		"names elsewhere":  func(b []byte) []byte { b[62], b[63] = 255, 255; return b },
		"sections far off": func(b []byte) []byte { b[47] = 255; return b },
	} {
		if got, err := strip(change(bytes.Clone(whole))); !errors.Is(err, errStrip) || got != nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestMayVerify(t *testing.T) {
	for text, want := range map[string]bool{
		"":                            true,
		"CONFIG_MODULE_SIG=y\n":       false,
		"CONFIG_MODULE_SIG_FORCE=y\n": true,
		"CONFIG_CMDLINE_BOOL=y\nCONFIG_CMDLINE=\"module.sig_enforce=1\"\n": true,
		"CONFIG_A=m\n# CONFIG_X not set":                                   false,
		"CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n":                      true,
	} {
		if got := mayVerify(parseConfig([]byte(text))); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// FuzzStrip: no file makes it panic, and what comes out can be read again.
func FuzzStrip(f *testing.F) {
	f.Add(module("depends=\x00"))
	f.Add(tracing(f, 1, elf.R_X86_64_PLT32, 0xe8, 0, 0, 0, 0, 0xc3))
	f.Add([]byte("\x7fELF" + strings.Repeat("\x00", 80)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := strip(b); err == nil {
			if _, err := strip(out); err != nil {
				t.Errorf("what was stripped is not understood: %v", err)
			}
		}
	})
}

// noCall does by hand what strip does to a call of __fentry__.
func noCall(code []byte, operand uint64) {
	copy(code[operand-1:], "\x0f\x1f\x44\x00\x00")
}
