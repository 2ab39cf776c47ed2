package main

import (
	"compress/gzip"
	_ "embed"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Kept out of sources: a change of it makes no new small images.
//
//go:embed big.go
var bigSource string

// bigNoise is the size of the file that does not compress.
const bigNoise = 60_000_000

// bigParts are the layers that come from packages, the lowest first: tools of a
// distribution, a web server, numeric Python, Node.js with its thousands of
// small files.
func bigParts() [][]string {
	return [][]string{
		{"base-files", "bash", "coreutils", "findutils", "grep", "sed", "util-linux", "git", "ca-certificates"},
		{"nginx-light"},
		{"python3-numpy", "libopenblas0-pthread"},
		{"npm"},
	}
}

// large is one image for measurements: six layers of gzip at its usual level,
// half a gigabyte of tar. Four are from packages, one is a file that does not
// compress, and the last one changes some files of the others.
func large() set {
	return set{
		version: func() (string, error) {
			closures, err := bigClosures()
			return bigSource + strings.Join(slices.Concat(closures...), " "), err
		},
		build: func(p packages) ([]named, error) {
			img, err := bigImage(p)
			return []named{{name: "big", image: img}}, err
		},
	}
}

// bigClosures lists what each of bigParts brings that no lower one has.
func bigClosures() ([][]string, error) {
	var seen []string
	var list [][]string
	for _, part := range bigParts() {
		specs, err := closure(part...)
		if err != nil {
			return nil, err
		}
		specs = slices.DeleteFunc(specs, func(s string) bool { return slices.Contains(seen, s) })
		seen = append(seen, specs...)
		list = append(list, specs)
	}
	return list, nil
}

func bigImage(p packages) (v1.Image, error) {
	trees, err := bigTrees(p)
	if err != nil {
		return nil, err
	}
	var ls []v1.Layer
	for _, t := range trees {
		l, err := t.layer(compression.GZip, tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		ls = append(ls, l)
	}
	return image(ls, v1.Config{Cmd: []string{"bash"}, Env: []string{searchPath}})
}

func bigTrees(p packages) ([]tree, error) {
	closures, err := bigClosures()
	if err != nil {
		return nil, err
	}
	var trees []tree
	for _, specs := range closures {
		files, err := p.fetch(specs)
		if err != nil {
			return nil, err
		}
		t := tree{}
		for _, f := range files {
			if err := addDeb(t, f); err != nil {
				return nil, err
			}
		}
		trees = append(trees, t)
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		trees[0].symlink(d, "usr/"+d)
	}
	return append(trees, noiseTree(), topTree()), nil
}

func noiseTree() tree {
	b := make([]byte, bigNoise)
	rand.NewChaCha8([32]byte{2}).Read(b) // never fails
	t := tree{}
	t.file("srv/noise", 0o644, string(b))
	return t
}

func topTree() tree {
	t := users()
	t.file("etc/nginx/conf.d/default.conf", 0o644, "server { listen 80; root /srv; }\n")
	t.file("etc/nginx/.wh.sites-enabled", 0o644, "")
	t.file("etc/apt/.wh..wh..opq", 0o644, "")
	return t
}
