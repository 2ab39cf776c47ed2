package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain is also the other process of the tests below.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ROOTFS_TEST_ADD"); dir != "" {
		os.Exit(addFromStdin(dir, os.Getenv("ROOTFS_TEST_DIFFID")))
	}
	os.Exit(m.Run())
}

func addFromStdin(dir, diffID string) int {
	s, err := Open(dir, Options{})
	if err == nil {
		// The marker says that AddLayer did read, so that it did the work.
		_, err = s.AddLayer(context.Background(), diffID, io.TeeReader(os.Stdin, readMarker()))
	}
	if err == nil {
		_, err = s.EnsureImage(context.Background(), []string{diffID}, EROFS)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func readMarker() io.Writer {
	var once sync.Once
	return writerFunc(func(p []byte) (int, error) {
		once.Do(func() { fmt.Println("read") })
		return len(p), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func addCommand(s *Store, diffID string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ROOTFS_TEST_ADD="+s.dir, "ROOTFS_TEST_DIFFID="+diffID)
	return cmd
}

// Of many processes that add a layer one does the work.
func TestConcurrentProcesses(t *testing.T) {
	s := newStore(t, Options{})
	layer := bigLayer(t, "a", deviceMinData)
	id := diffIDOf(layer)
	outs := make([]bytes.Buffer, 8)
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			cmd := addCommand(s, id)
			cmd.Stdin, cmd.Stdout = bytes.NewReader(layer), &outs[i]
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			// The reader that was not used breaks the pipe to it: no error.
			if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("process %d: %v: %s", i, err, &stderr)
			}
		})
	}
	wg.Wait()
	n := 0
	for i := range outs {
		n += strings.Count(outs[i].String(), "read")
	}
	if n != 1 {
		t.Errorf("%d processes read the layer", n)
	}
	checkNames(t, filepath.Join(s.dir, tmpDir))
	list(t, mustImage(t, s, EROFS, id))
}

// What a killed process leaves is swept by the next writer, and the layer can
// be added.
func TestKilledWriter(t *testing.T) {
	s := newStore(t, Options{})
	layer := bigLayer(t, "a", deviceMinData)
	id := diffIDOf(layer)
	cmd := addCommand(s, id)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(layer[:len(layer)/2]); err != nil {
		t.Fatal(err)
	}
	if n := len(dirNames(t, filepath.Join(s.dir, tmpDir))); n != 1 {
		t.Errorf("%d work directories of a running writer", n)
	}
	// A running writer is not swept, and its layer is not removed.
	if _, err := s.Prune(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.AddLayer(ctx, id, bytes.NewReader(layer)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second writer: %v, want it to wait", err)
	}
	if n := len(dirNames(t, filepath.Join(s.dir, tmpDir))); n != 1 {
		t.Errorf("%d work directories after a prune", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // is an error: killed
	if n := len(dirNames(t, filepath.Join(s.dir, tmpDir))); n != 1 || s.HasLayer(id) {
		t.Errorf("%d work directories after a kill, layer there: %v", n, s.HasLayer(id))
	}
	freed, err := s.Prune(t.Context(), nil)
	if err != nil || freed < 1<<20 {
		t.Errorf("prune freed %d bytes, %v", freed, err)
	}
	checkNames(t, filepath.Join(s.dir, tmpDir))
	mustAdd(t, s, layer)
}

func dirNames(t *testing.T, dir string) []fs.DirEntry {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestPrune(t *testing.T) {
	s := newStore(t, Options{})
	a, b, c := mustAdd(t, s, bigLayer(t, "a", deviceMinData)), mustAdd(t, s, makeTar(t, reg("b", "1"))), mustAdd(t, s, makeTar(t, reg("c", "1")))
	ab, ac := mustImage(t, s, EROFS, a, b), mustImage(t, s, Ext4, a, c)
	r, err := s.LayerTar(c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	freed, err := s.Prune(t.Context(), func(d string) bool { return d != c })
	if err != nil || freed <= ac.Size {
		t.Errorf("freed %d, want more than the image of %d; %v", freed, ac.Size, err)
	}
	if s.HasLayer(c) || !s.HasLayer(a) || !s.HasLayer(b) {
		t.Error("wrong layers left")
	}
	checkNames(t, filepath.Join(s.dir, imagesDir), ab.Key)
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("open tar of a removed layer: %v", err)
	}
	if freed, err = s.PruneImages(t.Context(), func([]string) bool { return false }); err != nil || freed < ab.Size {
		t.Errorf("freed %d, want the image of %d; %v", freed, ab.Size, err)
	}
	if freed, err = s.Remove(t.Context(), a, b, c); err != nil || freed < deviceMinData {
		t.Errorf("remove freed %d; %v", freed, err)
	}
	checkEmpty(t, s)
}

// A prune beside writers removes nothing that they need at that moment, and
// every call ends.
func TestPruneBesideWriters(t *testing.T) {
	s := newStore(t, Options{})
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := s.Prune(context.Background(), func(string) bool { return false }); err != nil {
				t.Errorf("prune: %v", err)
			}
		}
	})
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for j := range 20 {
				layer := makeTar(t, reg(fmt.Sprintf("f%d", i%2), strings.Repeat("x", j*500)))
				id := diffIDOf(layer)
				// Either may find the layer removed in between; nothing else.
				if _, err := s.AddLayer(t.Context(), id, bytes.NewReader(layer)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("add: %v", err)
				}
				if _, err := s.EnsureImage(t.Context(), []string{id}, EROFS); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("image: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	wg.Wait()
	if _, err := s.Prune(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
}
