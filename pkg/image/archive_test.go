package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// needTool returns the path of an oracle, or ends the test.
func needTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is needed: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func runTool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(needTool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// legacyArchive is what docker save wrote before 25: one directory a layer.
func legacyArchive(t testing.TB, img *testImage, tags string, more ...entry) []byte {
	t.Helper()
	var entries []entry
	var layers []string
	for i, l := range img.m.Layers {
		dir := fmt.Sprintf("%064x/", i)
		layers = append(layers, fmt.Sprintf("%q", dir+"layer.tar"))
		entries = append(entries, entry{name: dir, kind: tar.TypeDir},
			entry{name: dir + "layer.tar", body: plainOf(t, img.blobs[l.Digest.String()])})
	}
	config := hexOf(digestOf(img.config)) + ".json"
	entries = append(entries, entry{name: config, body: img.config})
	entries = append(entries, entry{name: fileManifest, body: []byte(fmt.Sprintf(
		`[{"Config":%q,"RepoTags":%s,"Layers":[%s]}]`, config, tags, strings.Join(layers, ",")))})
	return makeTar(t, append(entries, more...)...)
}

func plainOf(t testing.TB, b []byte) []byte {
	t.Helper()
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		return b
	}
	r := &layerReader{ctx: context.Background(), layer: &layerBlob{size: -1, open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}}
	defer r.Close()
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// layoutEntries is an OCI layout of images, as tar entries.
func layoutEntries(t testing.TB, images map[string]*testImage, edit func(*ocispec.Index)) []entry {
	t.Helper()
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	entries := []entry{{name: ocispec.ImageLayoutFile, body: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	seen := map[string]bool{}
	for _, tag := range slices.Sorted(func(yield func(string) bool) {
		for k := range images {
			if !yield(k) {
				return
			}
		}
	}) {
		img := images[tag]
		d := img.descriptor(nil)
		if tag != "" {
			d.Annotations = map[string]string{annotationRef: tag}
		}
		x.Manifests = append(x.Manifests, d)
		img.blobs[digestOf(img.manifest)] = img.manifest
		for dg, b := range img.blobs {
			if !seen[dg] {
				entries = append(entries, entry{name: blobName(dg), body: b})
			}
			seen[dg] = true
		}
	}
	if edit != nil {
		edit(&x)
	}
	return append(entries, entry{name: ocispec.ImageIndexFile, body: mustJSON(t, x)})
}

// writeDir puts tar entries into a directory.
func writeDir(t testing.TB, entries []entry) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		p := filepath.Join(dir, e.name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, e.body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFile(t testing.TB, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHostileArchives: nothing in an archive may point out of it, and no trick
// makes half an image.
func TestHostileArchives(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(canary, []byte(`{"rootfs":{"diff_ids":[]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(canary))
	img := simple(t, 1)
	manifest := func(s string) entry { return entry{name: fileManifest, body: []byte(s)} }
	oci := func(edit func(x *ocispec.Index)) []byte {
		return makeTar(t, layoutEntries(t, map[string]*testImage{"": img}, edit)...)
	}
	for name, tc := range map[string]struct {
		raw  []byte
		says string
	}{
		"dot dot":           {legacyArchive(t, img, `["a:b"]`, entry{name: "../x", body: []byte("x")}), "outside the archive"},
		"dot dot inside":    {legacyArchive(t, img, `["a:b"]`, entry{name: "a/../../x", body: []byte("x")}), "outside the archive"},
		"dot dot, harmless": {legacyArchive(t, img, `["a:b"]`, entry{name: "a/../x", body: []byte("x")}), "outside the archive"},
		"absolute":          {legacyArchive(t, img, `["a:b"]`, entry{name: canary, body: []byte("x")}), "outside the archive"},
		"absolute link":     {legacyArchive(t, img, `["a:b"]`, entry{name: "c.json", link: canary, kind: tar.TypeSymlink}), "leaves the archive"},
		"link up":           {legacyArchive(t, img, `["a:b"]`, entry{name: "c.json", link: "../secret", kind: tar.TypeSymlink}), "leaves the archive"},
		"hard link":         {legacyArchive(t, img, `["a:b"]`, entry{name: "c.json", link: "secret", kind: tar.TypeLink}), "neither a file nor"},
		"device":            {legacyArchive(t, img, `["a:b"]`, entry{name: "null", kind: tar.TypeChar}), "neither a file nor"},
		"fifo":              {legacyArchive(t, img, `["a:b"]`, entry{name: "f", kind: tar.TypeFifo}), "neither a file nor"},
		"long name":         {legacyArchive(t, img, `["a:b"]`, entry{name: strings.Repeat("a/", 600), kind: tar.TypeDir}), "longer than"},
		"config outside":    {makeTar(t, manifest(`[{"Config":"../secret","Layers":[]}]`)), "outside the archive"},
		"config absolute":   {makeTar(t, manifest(`[{"Config":"`+canary+`","Layers":[]}]`)), "outside the archive"},
		"config in cwd":     {makeTar(t, manifest(`[{"Config":"secret","Layers":[]}]`)), `holds no file "secret"`},
		"config by link": {makeTar(t, manifest(`[{"Config":"c","Layers":[]}]`),
			entry{name: "c", link: "secret", kind: tar.TypeSymlink}), `holds no file "c"`},
		"link loop": {makeTar(t, manifest(`[{"Config":"c","Layers":[]}]`),
			entry{name: "c", link: "c", kind: tar.TypeSymlink}), `holds no file "c"`},
		"layer outside":    {makeTar(t, manifest(`[{"Config":"c","Layers":["../../etc/passwd"]}]`), entry{name: "c", body: []byte("{}")}), "outside the archive"},
		"layer missing":    {makeTar(t, manifest(`[{"Config":"c","Layers":["l"]}]`), entry{name: "c", body: img.config}), `holds no file "l"`},
		"layers too few":   {makeTar(t, manifest(`[{"Config":"c","Layers":[]}]`), entry{name: "c", body: img.config}), "has 0 layers, config's diff_ids name 1"},
		"no config":        {makeTar(t, manifest(`[{}]`)), "outside the archive"},
		"no image":         {makeTar(t, manifest(`[]`)), "names 0 images"},
		"not a list":       {makeTar(t, manifest(`{}`)), "decode manifest.json"},
		"bad tag":          {legacyArchive(t, img, `["../../x"]`), "invalid image reference"},
		"digest as tag":    {legacyArchive(t, img, `["a@`+someDigest+`"]`), "is not a tag"},
		"wrong config":     {makeTar(t, manifest(`[{"Config":"`+hexOf(someDigest)+`.json","Layers":[]}]`), entry{name: hexOf(someDigest) + ".json", body: []byte(`{"rootfs":{}}`)}), "wrong content"},
		"wrong layer":      {makeTar(t, manifest(`[{"Config":"c","Layers":["l"]}]`), entry{name: "c", body: img.config}, entry{name: "l", body: layerTar(t, "x", nil)}), "diffID mismatch"},
		"huge manifest":    {makeTar(t, manifest(strings.Repeat(" ", maxDocument+1))), "larger than"},
		"many layers":      {makeTar(t, manifest(`[{"Config":"c","Layers":[`+strings.Repeat(`"l",`, 200)+`"l"]}]`)), "201 layers"},
		"nothing":          {makeTar(t), "not an image archive"},
		"not a tar":        {bytes.Repeat([]byte("no tar "), 1000), "read archive"},
		"empty":            {nil, "not an image archive"},
		"cut":              {legacyArchive(t, img, `["a:b"]`)[:1600], "read archive"},
		"gzip garbage":     {append(gz(t, legacyArchive(t, img, `null`)), "xyz"...), "read archive: unexpected EOF"},
		"oci version":      {makeTar(t, entry{name: ocispec.ImageLayoutFile, body: []byte(`{"imageLayoutVersion":"9"}`)}), "version"},
		"oci digest":       {oci(func(x *ocispec.Index) { x.Manifests[0].Digest = "sha256:../../../secret" }), "digest"},
		"oci absent":       {oci(func(x *ocispec.Index) { x.Manifests[0].Digest = someDigest }), "holds no file"},
		"oci size":         {oci(func(x *ocispec.Index) { x.Manifests[0].Size++ }), "descriptor says"},
		"oci empty":        {oci(func(x *ocispec.Index) { x.Manifests = nil }), "names 0 images"},
		"oci type":         {oci(func(x *ocispec.Index) { x.Manifests[0].MediaType = ocispec.MediaTypeImageIndex }), "does not fit"},
		"oci swapped blob": {swapBlob(t, img), "wrong content"},
	} {
		t.Run(name, func(t *testing.T) {
			o := fast()
			o.Parallel = 1
			s, layers := newStore(t, o)
			for _, r := range []io.Reader{bytes.NewReader(tc.raw), openFile(t, writeFile(t, tc.raw))} {
				images, err := s.Load(t.Context(), r, LoadOptions{})
				wantErr(t, err, nil, tc.says)
				if len(images) != 0 {
					t.Errorf("loaded %v", images)
				}
				checkEmpty(t, s, layers)
			}
		})
	}
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// swapBlob puts another blob with the same tar in it under a layer's digest.
func swapBlob(t testing.TB, img *testImage) []byte {
	entries := layoutEntries(t, map[string]*testImage{"": img}, nil)
	for i, e := range entries {
		if e.name == blobName(img.m.Layers[0].Digest.String()) {
			swapped := bytes.Clone(e.body)
			swapped[9] ^= 1 // gzip's OS byte: same tar, another digest
			entries[i].body = swapped
		}
	}
	return makeTar(t, entries...)
}
