package qemu

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// console copies the guest's serial output into a file of bounded size. It
// never stops reading, so the guest never waits for it.
type console struct {
	file    *os.File
	from    io.ReadCloser
	left    int64
	dropped atomic.Int64
	done    chan struct{}
}

func openConsole(path string, limit int64, from io.ReadCloser) (*console, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create console log: %w", err)
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("create console log: %w", err)
	}
	c := &console{file: f, from: from, left: limit, done: make(chan struct{})}
	go c.pump()
	return c, nil
}

func (c *console) pump() {
	defer close(c.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := c.from.Read(buf)
		c.write(buf[:n])
		if err != nil {
			return
		}
	}
}

// write keeps what fits and counts the rest. A full host disk loses bytes,
// nothing more.
func (c *console) write(p []byte) {
	keep := min(int64(len(p)), c.left)
	n, _ := c.file.Write(p[:keep])
	c.left -= int64(n)
	c.dropped.Add(int64(len(p) - n))
}

// finish waits for the last bytes. QEMU must have ended.
func (c *console) finish() error {
	<-c.done
	c.from.Close()
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("close console log: %w", err)
	}
	return nil
}
