package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCutSignature(t *testing.T) {
	signed := func(length string, signature string) string {
		return signature + "\x00\x00\x02\x00\x00\x00\x00\x00" + length + signatureMark
	}
	for name, tt := range map[string]struct{ module, signature string }{
		"none":             {"module", ""},
		"short":            {"", ""},
		"signed":           {"module", signed("\x00\x00\x00\x03", "abc")},
		"a signature only": {"", signed("\x00\x00\x00\x03", "abc")},
		"too long":         {"mo" + signed("\x00\x00\x00\x06", "abc"), ""},
		"huge":             {"module" + signed("\xff\xff\xff\xff", "abc"), ""},
		"marked only":      {"module" + signatureMark, ""},
	} {
		path := filepath.Join(t.TempDir(), "x.ko")
		if err := os.WriteFile(path, []byte(tt.module+tt.signature), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := cutSignature(path)
		left, _ := os.ReadFile(path)
		if err != nil || string(got) != tt.signature || string(left) != tt.module {
			t.Errorf("%s: cut %q, left %q: %v", name, got, left, err)
		}
		if err := appendTo(path, got); err != nil {
			t.Fatal(err)
		}
		if whole, _ := os.ReadFile(path); string(whole) != tt.module+tt.signature {
			t.Errorf("%s: put together %q", name, whole)
		}
	}
}
