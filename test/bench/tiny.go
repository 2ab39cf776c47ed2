package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tiny pulls a layer of very many, very small files: the worst case for the
// memory of whoever keeps a list of them.
func (b *bench) tiny() error {
	dir := filepath.Join(b.dir, "tiny")
	if _, err := b.help("tiny", dir, strconv.Itoa(b.files)); err != nil {
		return err
	}
	s, err := findSubject(dir, "")
	if err != nil {
		return err
	}
	p := &puller{bench: b, subject: s, ref: "oci:" + dir}
	cs := []contestant{{"micropod pull", p.micropod}, {"gunzip + sha256, same library, all CPUs", p.floor}}
	samples, err := b.alternate(cs...)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n== a layer of %d tiny files, from a layout\n", b.files)
	if err := b.report(cs, samples, []float64{0}); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "peak memory of pull and merge, %d files: %.0f MB\n", b.files, float64(p.peak)/1e6)
	return nil
}

// writeTiny writes an OCI layout with one such layer.
func writeTiny(dir string, files int) error {
	tarFile := dir + ".tar"
	defer os.Remove(tarFile)
	if err := writeTinyTar(tarFile, files); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(tarFile)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(img)
}

func writeTinyTar(path string, files int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buf)
	for i := range files {
		text := fmt.Sprintf("module.exports = %d;\n", i)
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)),
			Name: fmt.Sprintf("node_modules/package%d/lib/file%d.js", i%2000, i)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), buf.Flush())
}
