package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenUnpacksEachCompression(t *testing.T) {
	const release = "6.9.1-test_0+~x"
	// More than one LZ4 block, and more than one window of the search.
	want := vmlinux(release, 9<<20)
	for name, pack := range map[string]func() []byte{
		"gzip":        func() []byte { return packGzip(t, want) },
		"zstd":        func() []byte { return withSize(packZstd(t, want), len(want)) },
		"lz4":         func() []byte { return withSize(packLZ4(t, want), len(want)) },
		"xz":          func() []byte { return withSize(packXz(t, want, "-1"), len(want)) },
		"xz with x86": func() []byte { return withSize(packXz(t, want, "--x86", "--lzma2=preset=1,dict=1MiB"), len(want)) },
		"xz blocks": func() []byte {
			return withSize(packXz(t, want, "-1", "-T2", "--block-size=1MiB"), len(want))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files(t, dir, map[string]string{"vmlinuz": string(bzimage(release, pack()))})
			k, err := Open(filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "cache"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(k.Path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes that differ from the %d that were packed", len(got), len(want))
			}
			if k.Release != release {
				t.Errorf("release %q", k.Release)
			}
		})
	}
}

// The header may name no version; the banner in the ELF then does.
func TestOpenFindsReleaseInELF(t *testing.T) {
	want := vmlinux("5.16.0", 5<<20)
	img := bzimage("", packGzip(t, want))
	dir := t.TempDir()
	files(t, dir, map[string]string{"vmlinuz": string(img)})
	k, err := Open(filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if k.Release != "5.16.0" {
		t.Errorf("release %q", k.Release)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := vmlinux("6.1.0", 1000)
	gz := packGzip(t, good)
	patched := func(img []byte, off int, b ...byte) []byte {
		img = bytes.Clone(img)
		copy(img[off:], b)
		return img
	}
	arm64 := make([]byte, 4096)
	copy(arm64[56:], "ARM\x64")
	bigEndian := fakeELF(elf.EM_S390, "")
	bigEndian[5] = byte(elf.ELFDATA2MSB)
	bigEndian[18], bigEndian[19] = 0, byte(elf.EM_S390)
	for name, c := range map[string]struct {
		file []byte
		is   error
		says string
	}{
		"empty":              {nil, ErrFormat, "neither an ELF vmlinux nor a bzImage"},
		"text":               {bytes.Repeat([]byte("hello "), 500), ErrFormat, "neither an ELF vmlinux nor a bzImage"},
		"old protocol":       {patched(bzimage("6.1.0", gz), hdrVersion, 7, 2), ErrFormat, "boot protocol 2.07 is too old"},
		"payload outside":    {patched(bzimage("6.1.0", gz), hdrPayloadLength, 0xff, 0xff, 0xff, 0x7f), ErrFormat, "not inside the file"},
		"offset outside":     {patched(bzimage("6.1.0", gz), hdrPayloadOffset, 0xff, 0xff, 0xff, 0xff), ErrFormat, "not inside the file"},
		"no payload":         {bzimage("6.1.0", nil), ErrFormat, "not inside the file"},
		"truncated gzip":     {bzimage("6.1.0", withSize(gz[:len(gz)/2], len(good))), io.ErrUnexpectedEOF, "unpack payload"},
		"size too small":     {bzimage("6.1.0", withSize(packLZ4(t, good), len(good)-1)), ErrFormat, "instead of"},
		"size too big":       {bzimage("6.1.0", withSize(packLZ4(t, good), len(good)+1)), ErrFormat, "instead of"},
		"bomb":               {bzimage("6.1.0", withSize(packZstd(t, good), maxELF+1)), ErrFormat, "more than"},
		"lz4 block too long": {bzimage("6.1.0", withSize([]byte("\x02\x21\x4c\x18\xff\xff\xff\x7f"), 5)), ErrFormat, "block of"},
		"lzma":               {bzimage("6.1.0", withSize([]byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff"), 9)), ErrFormat, "lzma compression is not supported"},
		"bzip2":              {bzimage("6.1.0", withSize([]byte("BZh91AY&SY"), 9)), ErrFormat, "bzip2 compression is not supported"},
		"lzo":                {bzimage("6.1.0", withSize([]byte("\x89LZO\x00\r\n\x1a\n"), 9)), ErrFormat, "lzo compression is not supported"},
		"unknown":            {bzimage("6.1.0", withSize([]byte("\x01\x02\x03\x04"), 9)), ErrFormat, "unknown compression"},
		"payload no ELF":     {bzimage("6.1.0", packGzip(t, bytes.Repeat([]byte("x"), 100))), ErrFormat, "the payload is no ELF"},
		"i386 in bzImage":    {bzimage("6.1.0", packGzip(t, fakeELF(elf.EM_386, "x"))), ErrArch, "built for i386, this host needs x86_64"},
		"aarch64 ELF":        {fakeELF(elf.EM_AARCH64, "x"), ErrArch, "built for aarch64"},
		"riscv ELF":          {fakeELF(elf.EM_RISCV, "x"), ErrArch, "built for riscv"},
		"s390 ELF":           {bigEndian, ErrArch, "built for s390"},
		"aarch64 Image":      {arm64, ErrArch, "an aarch64 Image"},
		"object file":        {module("name=x\x00"), ErrFormat, "no boot loader can load"},
		"no version":         {fakeELF(elf.EM_X86_64, "Linux version ../../etc (x)\x00"), ErrFormat, "no Linux version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cacheDir := filepath.Join(dir, "cache")
			files(t, dir, map[string]string{"vmlinuz": string(c.file)})
			_, err := Open(filepath.Join(dir, "vmlinuz"), cacheDir)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q, want %q and %q", err, c.is, c.says)
			}
			left, err := os.ReadDir(cacheDir)
			if err != nil || len(left) != 1 || left[0].Name() != ".lock" {
				t.Errorf("left in the cache: %v %v", left, err)
			}
		})
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, filepath.Join(dir, "cache")); !errors.Is(err, ErrFormat) {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzBzImage(f *testing.F) {
	good := vmlinux("6.1.0", 1000)
	f.Add(bzimage("6.1.0", packGzip(f, good)))
	f.Add(bzimage("6.1.0", withSize(packZstd(f, good), len(good))))
	f.Add(bzimage("6.1.0", withSize(packLZ4(f, good), len(good))))
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, size := bytes.NewReader(b), int64(len(b))
		if ok, err := checkELF(r); ok && err == nil {
			if release, _, err := scanELF(r, size); err != nil || release != "" && !validRelease(release) {
				t.Errorf("release %q: %v", release, err)
			}
		}
		img, ok, err := parseBzImage(r, size)
		if !ok || err != nil {
			return
		}
		const limit = 1 << 20
		var out bytes.Buffer
		n, err := unpack(&out, io.NewSectionReader(r, img.offset, img.length), limit)
		if int64(out.Len()) != n || n > limit+1 || err == nil && n > limit {
			t.Errorf("%d bytes written, %d reported: %v", out.Len(), n, err)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("CONFIG_EROFS_FS=m\n# CONFIG_X is not set\nCONFIG_HZ=250\nCONFIG_EXT4_FS=y\n"))
	f.Add(append([]byte(ikconfigStart[:8]), packGzip(f, []byte("CONFIG_A=y\n"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := scanELF(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Error(err)
		}
		for k, v := range parseConfig(b) {
			if v != "y" && v != "m" || strings.ContainsAny(k, "\n=") {
				t.Errorf("%q=%q", k, v)
			}
		}
	})
}
