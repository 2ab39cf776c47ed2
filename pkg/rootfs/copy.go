package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copySparse copies size bytes of the file at name to out at off, data only.
func copySparse(ctx context.Context, out *os.File, off int64, name string, size int64) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	defer in.Close()
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
			return nil
		} else if err != nil {
			return fmt.Errorf("pack layer: %w", err)
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("pack layer: %w", err)
		}
		end = min(end, size)
		if err := copyRange(out, off+start, in, start, end-start); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyRange lets the kernel copy where it can (io.Copy between files).
func copyRange(out *os.File, to int64, in *os.File, from, n int64) error {
	if _, err := out.Seek(to, io.SeekStart); err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	if _, err := in.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	if _, err := io.CopyN(out, in, n); err != nil {
		return fmt.Errorf("pack layer: %w", noEOF(err))
	}
	return nil
}
