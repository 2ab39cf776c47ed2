package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSharedLibraries compares with ldd, the loader's own answer.
func TestSharedLibraries(t *testing.T) {
	program, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				want = append(want, word)
			}
		}
	}
	got, err := sharedLibraries(program)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("libraries of %s\n got %q\nldd: %q", program, got, want)
	}
	files, err := agentWithLibraries(program)
	if err != nil {
		t.Fatal(err)
	}
	if files[0].Name != "init" || len(files) != len(want)+1 {
		t.Errorf("agent files %+v", files)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name, "/") || f.Mode != 0o755 {
			t.Errorf("file %s with mode %v", f.Name, f.Mode)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		if err != nil || n != f.Size {
			t.Errorf("%s has %d bytes, not %d: %v", f.Name, n, f.Size, err)
		}
	}
}

func TestAgentFileRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no ELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, t.TempDir(), "/nonexistent"} {
		if files, err := agentWithLibraries(path); err == nil {
			t.Errorf("%s gave %v", path, files)
		}
	}
}

// TestAgentStamp: a file with other content is another one, whatever its size and
// its modification time say.
func TestAgentStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	old := time.Unix(1_000_000_000, 0)
	write := func(text string) string {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		f, err := agentFile("init", path)
		if err != nil {
			t.Fatal(err)
		}
		return f.Stamp
	}
	before := write("one")
	if again, err := agentFile("init", path); err != nil || again.Stamp != before {
		t.Errorf("the stamp of a file that nobody changed: %s, then %s, %v", before, again.Stamp, err)
	}
	for write("two") == before { // the file system's clock ticks slowly
		if t.Context().Err() != nil {
			t.Fatal("the stamp does not change")
		}
	}
}
