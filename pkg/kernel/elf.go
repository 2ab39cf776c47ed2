package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/klauspost/compress/gzip"
)

const (
	elfHeaderSize = 64
	banner        = "Linux version "
	// kernel/configs.c brackets the gzipped configuration with these.
	ikconfigStart = "IKCFG_ST\x1f\x8b"
	// maxConfig bounds an unpacked configuration; real ones have 300 KiB.
	maxConfig = 8 << 20
	// A window is searched at a time. The overlap is longer than anything
	// that is looked for.
	window  = 4 << 20
	overlap = 4 << 10
)

// machine is the ELF machine of guests: VMs run the host's instruction set.
func machine() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

func checkMachine(c elf.Class, d elf.Data, m elf.Machine) error {
	want := machine()
	if m != want || c != elf.ELFCLASS64 || d != elf.ELFDATA2LSB {
		return fmt.Errorf("built for %s, this host needs %s: %w", archName(m), archName(want), ErrArch)
	}
	return nil
}

func archName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "x86_64"
	case elf.EM_AARCH64:
		return "aarch64"
	case elf.EM_386:
		return "i386"
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
}

// checkELF reads the header of an uncompressed kernel. ok is false when the
// file is no ELF at all.
func checkELF(r io.ReaderAt) (ok bool, err error) {
	h := make([]byte, elfHeaderSize)
	if n, err := r.ReadAt(h, 0); n < len(h) {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, fmt.Errorf("read ELF header: %w", err)
	}
	if string(h[:4]) != elf.ELFMAG {
		return false, nil
	}
	le := binary.LittleEndian
	typ, m := elf.Type(le.Uint16(h[16:])), elf.Machine(le.Uint16(h[18:]))
	if elf.Data(h[5]) == elf.ELFDATA2MSB {
		m = elf.Machine(binary.BigEndian.Uint16(h[18:]))
	}
	if err := checkMachine(elf.Class(h[4]), elf.Data(h[5]), m); err != nil {
		return true, err
	}
	if phnum := le.Uint16(h[56:]); typ != elf.ET_EXEC && typ != elf.ET_DYN || phnum == 0 {
		return true, fmt.Errorf("an ELF file that no boot loader can load: %w", ErrFormat)
	}
	return true, nil
}

// foreignImage names kernels of other architectures by their first bytes.
func foreignImage(r io.ReaderAt) error {
	h := make([]byte, 64)
	if n, _ := r.ReadAt(h, 0); n < len(h) {
		return nil
	}
	if string(h[56:60]) == "ARM\x64" { // Documentation/arch/arm64/booting.rst
		return fmt.Errorf("an aarch64 Image, this host needs %s: %w", archName(machine()), ErrArch)
	}
	return nil
}

// search calls found for every place of each needle in r, until found returns
// true: that needle is not looked for any more.
func search(r io.ReaderAt, size int64, needles []string, found func(needle string, at int64) (done bool)) error {
	buf := make([]byte, min(window, size))
	needles = append([]string(nil), needles...)
	for off := int64(0); off < size && len(needles) > 0; off += window - overlap {
		n, err := r.ReadAt(buf[:min(window, size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("search kernel: %w", err)
		}
		keep := needles[:0]
		for _, needle := range needles {
			if !searchWindow(buf[:n], off, needle, found) {
				keep = append(keep, needle)
			}
		}
		needles = keep
	}
	return nil
}

func searchWindow(b []byte, off int64, needle string, found func(string, int64) bool) bool {
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte(needle))
		if i < 0 {
			return false
		}
		at += i
		if found(needle, off+int64(at)) {
			return true
		}
	}
}

// scanELF finds the release and the configuration inside an ELF.
func scanELF(r io.ReaderAt, size int64) (release string, config map[string]string, err error) {
	err = search(r, size, []string{banner, ikconfigStart}, func(needle string, at int64) bool {
		if needle == banner {
			release = readRelease(r, at+int64(len(banner)))
			return release != ""
		}
		from := at + int64(len(ikconfigStart)) - 2
		config = readIKConfig(io.NewSectionReader(r, from, size-from))
		return config != nil
	})
	return release, config, err
}

// readIKConfig unpacks CONFIG_IKCONFIG's data; nil when it is none.
func readIKConfig(r io.Reader) map[string]string {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil
	}
	defer z.Close()
	z.Multistream(false)
	b, err := io.ReadAll(io.LimitReader(z, maxConfig+1))
	if err != nil || len(b) > maxConfig {
		return nil
	}
	return parseConfig(b)
}

// parseConfig reads a .config: symbols without CONFIG_ that are y or m. It is
// nil when b holds none, as is the case when b is something else.
func parseConfig(b []byte) map[string]string {
	var config map[string]string
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		symbol, isConfig := strings.CutPrefix(key, "CONFIG_")
		if !ok || !isConfig || value != "y" && value != "m" {
			continue
		}
		if config == nil {
			config = map[string]string{}
		}
		config[symbol] = value
	}
	return config
}

// scanMarkers says which of the strings the ELF holds.
func scanMarkers(r io.ReaderAt, size int64, markers []string) (map[string]bool, error) {
	has := map[string]bool{}
	err := search(r, size, markers, func(m string, _ int64) bool {
		has[m] = true
		return true
	})
	return has, err
}
