package doctest

import (
	"bytes"
	"io"
	"log"
	"os"
	"strconv"
	"testing"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// cpioNames lists the entries of a newc archive (the kernel's
// early-userspace/buffer-format.rst).
func cpioNames(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header = 110
	number := func(at int) int {
		n, err := strconv.ParseUint(string(b[at:at+8]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	pad := func(n int) int { return (n + 3) &^ 3 }
	var names []string
	for len(b) >= header && bytes.HasPrefix(b, []byte("070701")) {
		size, nameSize := number(54), number(94)
		end := pad(header + nameSize)
		if end+pad(size) > len(b) {
			t.Fatalf("%s is cut short", path)
		}
		name := string(b[header : header+nameSize-1])
		if name == "TRAILER!!!" {
			return names
		}
		names = append(names, name)
		b = b[end+pad(size):]
	}
	t.Fatalf("%s has no end", path)
	return nil
}
