package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxKernelFile bounds what is read of a kernel file, maxELF what a compressed
// one may unpack to. A kernel with all its debug information is below both.
const (
	maxKernelFile = 1 << 30
	maxELF        = 1 << 30
)

// Offsets of the real-mode header,
// https://docs.kernel.org/arch/x86/boot.html#the-real-mode-kernel-header
const (
	hdrSetupSects    = 0x1f1
	hdrBootFlag      = 0x1fe
	hdrMagic         = 0x202
	hdrVersion       = 0x206
	hdrKernelVersion = 0x20e
	hdrLoadFlags     = 0x211
	hdrPayloadOffset = 0x248
	hdrPayloadLength = 0x24c
	hdrSize          = 0x250
	bootFlag         = 0xaa55
	sector           = 512
	// The version string is one line of some 100 bytes.
	maxVersionString = 512
)

// bzImage is the part of the header that matters here.
type bzImage struct {
	release string // "" when the header names none
	offset  int64  // of the compressed payload in the file
	length  int64  // of the payload with its trailing size
}

// parseBzImage reads the header of a bzImage of size bytes. The error wraps
// ErrFormat; ok is false when the file does not even look like one.
func parseBzImage(r io.ReaderAt, size int64) (img bzImage, ok bool, err error) {
	h := make([]byte, hdrSize)
	if n, err := r.ReadAt(h, 0); n < hdrSize {
		if errors.Is(err, io.EOF) {
			return img, false, nil
		}
		return img, false, fmt.Errorf("read header: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(h[hdrBootFlag:]) != bootFlag || string(h[hdrMagic:hdrMagic+4]) != "HdrS" {
		return img, false, nil
	}
	// payload_offset came with protocol 2.08, Linux 2.6.26.
	if v := le.Uint16(h[hdrVersion:]); v < 0x208 || h[hdrLoadFlags]&1 == 0 {
		return img, true, fmt.Errorf("boot protocol %d.%02d is too old: %w", v>>8, v&0xff, ErrFormat)
	}
	sects := int64(h[hdrSetupSects])
	if sects == 0 {
		sects = 4
	}
	img.offset = (sects+1)*sector + int64(le.Uint32(h[hdrPayloadOffset:]))
	img.length = int64(le.Uint32(h[hdrPayloadLength:]))
	if img.length < 8 || img.offset+img.length > size {
		return img, true, fmt.Errorf("payload of %d bytes at %d is not inside the file of %d: %w",
			img.length, img.offset, size, ErrFormat)
	}
	if p := int64(le.Uint16(h[hdrKernelVersion:])); p != 0 {
		img.release = readRelease(r, p+sector)
	}
	return img, true, nil
}

// readRelease reads the first word of the NUL terminated string at off, or ""
// when that is no release name.
func readRelease(r io.ReaderAt, off int64) string {
	b := make([]byte, maxVersionString)
	n, _ := r.ReadAt(b, off) // the string may end the file
	b, _, found := bytes.Cut(b[:n], []byte{0})
	if !found {
		return ""
	}
	word, _, _ := strings.Cut(string(b), " ")
	if !validRelease(word) {
		return ""
	}
	return word
}

// validRelease guards the path lib/modules/<release>: the name comes from
// inside a file that somebody downloaded.
func validRelease(s string) bool {
	if s == "" || len(s) > 64 || s[0] < '0' || s[0] > '9' { // __NEW_UTS_LEN is 64
		return false
	}
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.ContainsRune("._+~-", c):
		default:
			return false
		}
	}
	return true
}

// version takes major and minor from a release such as "6.1.0-56-cloud-amd64".
func version(release string) (v [2]int) {
	// What does not parse stays 0: such a kernel counts as old.
	_, _ = fmt.Sscanf(release, "%d.%d", &v[0], &v[1])
	return v
}
