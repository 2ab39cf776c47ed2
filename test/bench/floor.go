package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// floorMain does what every pull has to do, and nothing else: all layers are
// read from files, decompressed and hashed before and after, as many at a time
// as there are CPUs, with the library that MicroPod has.
func floorMain(blobs []string) error {
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, name := range blobs {
		g.Go(func() error { return floor(name) })
	}
	return g.Wait()
}

func floor(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	packed := io.TeeReader(f, sha256.New())
	z, err := gzip.NewReader(bufio.NewReaderSize(packed, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(sha256.New(), struct{ io.Reader }{z}, make([]byte, 128<<10))
	return errors.Join(err, z.Close())
}
