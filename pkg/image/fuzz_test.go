package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzReference: what parses has one spelling, which parses to itself, and
// names no path outside its own.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"nginx", "a/b:c@" + someDigest, "localhost:5000/a", "oci:/d:t", "oci-archive:f.tar",
		"docker-archive:/f:a/b:c", "docker-daemon:x", "[::1]:5/a", "oci:latest", "docker.io/oci", "a@sha256:../x", "\x00", "oci:..:t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		a, err := parseTarget(in)
		if err != nil {
			return
		}
		b, err := parseTarget(a.String())
		if err != nil || b.String() != a.String() || b.kind != a.kind || b.path != a.path {
			t.Errorf("%q is %q, which is %q (%v)", in, a, b, err)
		}
		if a.path != "" && (!filepath.IsAbs(a.path) || strings.Contains(a.path, "/../")) {
			t.Errorf("%q has the path %q", in, a.path)
		}
		if d := a.digest(); d != "" && checkDigest(d) != nil {
			t.Errorf("%q has the digest %q", in, d)
		}
	})
}

// FuzzIndex: the store's index decodes or is damaged line by line, what it
// gives is safe to use as paths, and it encodes to the same again.
func FuzzIndex(f *testing.F) {
	f.Add([]byte("{\"version\":1}\n{\"id\":\"" + someDigest + "\",\"names\":[\"a:b\"]}\n"))
	f.Add([]byte("{\"version\":1}\nxx\n{\"id\":\"sha256:../x\"}\n"))
	f.Add([]byte("{\"version\":9}\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := decodeRecords(raw)
		if err != nil {
			return
		}
		for _, r := range x.records {
			if checkDigest(r.ID) != nil || r.Manifest != "" && checkDigest(r.Manifest) != nil {
				t.Errorf("record %+v", r)
			}
		}
		once, err := x.encode()
		if err != nil {
			t.Fatal(err)
		}
		y, err := decodeRecords(once)
		if err != nil || len(y.records) != len(x.records) || len(y.damaged) != len(x.damaged) {
			t.Errorf("%d+%d records became %d+%d, %v", len(x.records), len(x.damaged), len(y.records), len(y.damaged), err)
		}
	})
}

// FuzzManifest: a document is a manifest or an index, never both, with sound
// descriptors.
func FuzzManifest(f *testing.F) {
	d := `{"mediaType":"` + ocispec.MediaTypeImageConfig + `","digest":"` + someDigest + `","size":2}`
	f.Add([]byte(`{"schemaVersion":2,"config":`+d+`,"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[`+d+`]}`), ocispec.MediaTypeImageIndex)
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		doc, err := decodeDocument(raw, mediaType)
		if err != nil {
			return
		}
		if (doc.manifest == nil) == (doc.index == nil) {
			t.Fatalf("%q is both or neither", raw)
		}
		if doc.manifest == nil {
			choosePlatform(doc.index.Manifests, ocispec.Platform{OS: "linux", Architecture: "amd64"})
			groupEntries(doc.index)
			return
		}
		for _, l := range append(doc.manifest.Layers, doc.manifest.Config) {
			if checkDigest(l.Digest.String()) != nil || l.Size < 0 || l.Size > maxLayerBytes {
				t.Errorf("descriptor %+v", l)
			}
		}
	})
}

// FuzzConfig decodes image configs.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]},"history":[{}]}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:x"]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, diffIDs, err := decodeConfig(raw)
		if err != nil {
			return
		}
		for _, d := range diffIDs {
			if checkDigest(d) != nil {
				t.Errorf("diffID %q", d)
			}
		}
	})
}

// FuzzSavedManifest decodes docker's manifest.json.
func FuzzSavedManifest(f *testing.F) {
	f.Add([]byte(`[{"Config":"c.json","RepoTags":["a:b"],"Layers":["x/layer.tar"]}]`))
	f.Add([]byte(`[{"Config":"../c","Layers":["/etc/passwd"]}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := decodeSaved(raw)
		if err != nil {
			return
		}
		for _, m := range all {
			for _, n := range append(m.Layers, m.Config) {
				if clean := filepath.Join("/root", n); !strings.HasPrefix(clean, "/root") || filepath.IsAbs(n) {
					t.Errorf("name %q leaves the archive", n)
				}
			}
			m.tags()
		}
	})
}

// FuzzArchive walks whole archives: no entry outside, every section inside the
// bytes that are there or an error when it is read.
func FuzzArchive(f *testing.F) {
	img := simple(f, 1)
	f.Add(legacyArchive(f, img, `["a:b"]`))
	f.Add(makeTar(f, layoutEntries(f, map[string]*testImage{"v1": img}, nil)...))
	f.Add(makeTar(f, entry{name: "a", link: "b", kind: tar.TypeSymlink}, entry{name: "b", body: []byte("x")}))
	f.Add(makeTar(f, entry{name: "a", link: "../../b", kind: tar.TypeSymlink}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := indexTar(context.Background(), bytes.NewReader(raw))
		if err != nil {
			return
		}
		for name := range a.files {
			if filepath.IsAbs(name) || !strings.HasPrefix(filepath.Join("/root", name), "/root") {
				t.Errorf("entry %q", name)
			}
		}
		if x, err := layoutIndex(a); err == nil {
			groups, _ := groupEntries(x)
			for _, g := range groups {
				resolveEntries(context.Background(), a, g, wish{lone: true})
			}
		}
		if all, err := a.saved(); err == nil {
			for i := range all {
				a.savedImage(&all[i])
			}
		}
	})
}

// FuzzDecompress: any bytes end, in an error or in a bounded stream.
func FuzzDecompress(f *testing.F) {
	f.Add(gz(f, []byte("hello")))
	f.Add(zst(f, []byte("hello")))
	f.Add([]byte("plain"))
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		plain, free, err := decompress(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		defer free()
		io.Copy(io.Discard, io.LimitReader(plain, 64<<20))
	})
}
