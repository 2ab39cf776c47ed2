package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/internal/failpoint"
)

// maxFile bounds a state file, in bytes: more is damage, not data.
const maxFile = 16 << 20

// WriteFile replaces path durably: readers see the old bytes or the new ones,
// also after a power cut. The file is 0600. The directory must exist.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already once it has been renamed
	if err := fill(f, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	failpoint.Here(failpoint.StateWritten)
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// ReplaceFile is WriteFile for a caller that holds the lock under which path is
// written. What writers left that died is removed.
func ReplaceFile(path string, data []byte) error {
	if err := RemoveTempFiles(path); err != nil {
		return err
	}
	return WriteFile(path, data)
}

// tempPrefix begins the names of the temporary files of path.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// SyncDir makes the renames and removals in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// writeJSON writes v to path durably, under the lock that path is written under.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return ReplaceFile(path, append(b, '\n'))
}

// readJSON reads path into v. The error wraps fs.ErrNotExist, ErrDamaged or
// ErrNewer, so that callers can tell "never written" from "lost".
func readJSON(path string, v any) error {
	b, err := readBounded(path)
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	if head.Version > schemaVersion {
		return fmt.Errorf("%s: version %d: %w", path, head.Version, ErrNewer)
	}
	if head.Version < 1 {
		return fmt.Errorf("%s: version %d: %w", path, head.Version, ErrDamaged)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", path, ErrDamaged)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: %w: over %d bytes", path, ErrDamaged, maxFile)
	}
	return b, nil
}

// missing reports whether err says that a file is absent.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
