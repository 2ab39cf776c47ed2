package rootfs

import (
	"bytes"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// writeFrame replaces a frame file by these records.
func writeFrame(t testing.TB, path string, records []byte) {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(records); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
