// Command images makes the OCI images that the tests run, from packages of the
// distribution: no registry, no docker, no root.
//
//	go run ./test/images DIR
//
// writes the OCI layout DIR with the references busybox, nginx, python3, config,
// zstd and multi (see images.go). Packages are kept in DIR.debs. When DIR was made by
// this program from the same versions, nothing is done. The same packages give
// the same digests.
//
//	go run ./test/images -big DIR
//
// writes a layout with the one reference big instead, an image of half a
// gigabyte for measurements (see big.go). It fetches some 130 MB of packages.
package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// A change of this program makes new images.
//
//go:embed main.go debs.go tree.go images.go
var sources embed.FS

const refName = "org.opencontainers.image.ref.name"

func main() {
	big := flag.Bool("big", false, "make only the image big, for measurements")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: go run ./test/images [-big] DIR") }
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	set := small()
	if *big {
		set = large()
	}
	if err := run(flag.Arg(0), set); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// set is the images of one layout.
type set struct {
	version func() (string, error) // names what they are made from
	build   func(packages) ([]named, error)
}

// small are the images of the tests.
func small() set {
	return set{func() (string, error) { return candidates(busyboxPackage, nginxPackage, pythonPackage) }, build}
}

func run(dir string, s set) error {
	key, err := version(s)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(filepath.Join(dir, ".version")); err == nil && string(old) == key {
		return nil
	}
	fmt.Fprintln(os.Stderr, "making test images in", dir)
	p := packages{dir: dir + ".debs"}
	images, err := s.build(p)
	if err != nil {
		return err
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := write(tmp, images); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, ".version"), []byte(key), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// version names what the images are made from.
func version(s set) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := sources.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		return "", err
	}
	versions, err := s.version()
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)) + "\n" + versions, nil
}

// named is an image, or an index of images, with its name in the layout.
type named struct {
	name  string
	image v1.Image
	index v1.ImageIndex
}

func write(dir string, images []named) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, n := range images {
		name := layout.WithAnnotations(map[string]string{refName: n.name})
		if n.index != nil {
			err = errors.Join(err, path.AppendIndex(n.index, name))
		} else {
			err = errors.Join(err, path.AppendImage(n.image, name))
		}
	}
	return err
}
