package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Endings of full files.
const (
	gz          = ".gz"
	gzTemporary = ".gz.tmp" // while it is made
)

// numbered names the n-th full file of a log.
func numbered(path string, n int) string { return path + "." + strconv.Itoa(n) }

// numbers lists the full files of a log, the oldest first. A directory that
// cannot be read has none.
func numbers(path string) []int {
	entries, _ := os.ReadDir(filepath.Dir(path))
	var all []int
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		digits, _, _ := strings.Cut(rest, ".")
		n, err := strconv.Atoi(digits)
		if ours && err == nil && n > 0 && n < 1<<30 && strconv.Itoa(n) == digits {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TempFiles lists what a writer of the log that died left of a compression. The
// caller knows that no other writer lives.
func TempFiles(path string) []string {
	var found []string
	for _, n := range numbers(path) {
		temp := numbered(path, n) + gzTemporary
		if _, err := os.Lstat(temp); err == nil {
			found = append(found, temp)
		}
	}
	return found
}

// compress replaces a full file by a smaller one. Where that does not work, for
// want of space, the file stays.
func compress(full string) {
	if err := compressTo(full, full+gzTemporary); err != nil {
		os.Remove(full + gzTemporary)
		return
	}
	// In this order: a reader finds one of the two at any time.
	if err := os.Rename(full+gzTemporary, full+gz); err == nil {
		os.Remove(full)
	}
}

func compressTo(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close(), out.Close())
}

// openFull opens the n-th full file, in whatever form it is there; fs.ErrNotExist
// says that it is not.
func openFull(path string, n int) (io.ReadCloser, error) {
	full := numbered(path, n)
	f, err := os.Open(full)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(full + gz)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read log %s: %w", full, err)
	}
	return unzipped{z, f}, nil
}

// unzipped reads a compressed file and closes it.
type unzipped struct {
	*gzip.Reader
	f *os.File
}

func (u unzipped) Close() error { return u.f.Close() }
