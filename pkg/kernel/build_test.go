package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// tool finds a program that a test needs.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatalf("%v (run scripts/test-setup.sh)", err)
		}
		t.Skip(err)
	}
	return path
}

// fakeELF is the smallest kernel: a header, and code with strings in it.
func fakeELF(m elf.Machine, content string) []byte {
	b := make([]byte, 64, 64+len(content))
	copy(b, elf.ELFMAG)
	b[4], b[5], b[6] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	le := binary.LittleEndian
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(m))
	le.PutUint32(b[20:], uint32(elf.EV_CURRENT))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	return append(b, content...)
}

// vmlinux is a fake kernel of about size bytes with calls all over it, which
// is what the x86 filter of xz rewrites.
func vmlinux(release string, size int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var code bytes.Buffer
	for code.Len() < size {
		code.Write([]byte{0xe8, byte(rng.Uint32()), byte(rng.Uint32()), 0, 0})
		code.WriteString("\x90\x48\x89\xe5some text")
	}
	code.WriteString("Linux version " + release + " (builder@host) #1 SMP\x00")
	return fakeELF(machine(), code.String())
}

// bzimage wraps a payload as the kernel's build does.
func bzimage(release string, payload []byte) []byte {
	const sects = 4
	img := make([]byte, (sects+1)*sector)
	le := binary.LittleEndian
	img[hdrSetupSects] = sects
	le.PutUint16(img[hdrBootFlag:], bootFlag)
	copy(img[hdrMagic:], "HdrS")
	le.PutUint16(img[hdrVersion:], 0x20f)
	img[hdrLoadFlags] = 1
	le.PutUint16(img[hdrKernelVersion:], 0x400-sector)
	copy(img[0x400:], release+" (builder@host) #1 SMP\x00")
	const before = 300 // the decompressor's own code
	le.PutUint32(img[hdrPayloadOffset:], before)
	le.PutUint32(img[hdrPayloadLength:], uint32(len(payload)))
	img = append(img, make([]byte, before)...)
	return append(append(img, payload...), "code after the payload"...)
}

func withSize(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

func packGzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packZstd(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(maxDict))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packLZ4(t testing.TB, b []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, lz4LegacyMagic)
	for len(b) > 0 {
		block := b[:min(len(b), lz4LegacyBlock)]
		b = b[len(block):]
		dst := make([]byte, lz4.CompressBlockBound(len(block)))
		var c lz4.Compressor
		n, err := c.CompressBlock(block, dst)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
		out = append(out, dst[:n]...)
	}
	return out
}

// packXz runs the real xz with the options of scripts/xz_wrap.sh.
func packXz(t testing.TB, b []byte, args ...string) []byte {
	cmd := exec.Command(tool(t, "xz"), append([]string{"--check=crc32", "--stdout"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// module is an ELF object with a .modinfo section.
func module(modinfo string) []byte {
	const headerSize, sectionSize = 64, 64
	names := "\x00.modinfo\x00.shstrtab\x00"
	b := fakeELF(machine(), modinfo+names)
	le := binary.LittleEndian
	le.PutUint16(b[16:], uint16(elf.ET_REL))
	le.PutUint16(b[54:], 0)
	le.PutUint16(b[56:], 0)
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[58:], sectionSize)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	section := func(name uint32, typ elf.SectionType, off, size int) {
		s := make([]byte, sectionSize)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], uint32(typ))
		le.PutUint64(s[24:], uint64(off))
		le.PutUint64(s[32:], uint64(size))
		b = append(b, s...)
	}
	section(0, elf.SHT_NULL, 0, 0)
	section(1, elf.SHT_PROGBITS, headerSize, len(modinfo))
	section(10, elf.SHT_STRTAB, headerSize+len(modinfo), len(names))
	return b
}

// files writes a tree below dir.
func files(t testing.TB, dir string, tree map[string]string) {
	t.Helper()
	for name, content := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
