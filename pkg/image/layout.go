package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations that name an image in a layout: the specification's, which holds
// a tag or a whole name, and containerd's, which holds a whole name.
const (
	annotationRef  = ocispec.AnnotationRefName
	annotationName = "io.containerd.image.name"
)

// layoutSource is a layout in a directory or in an archive.
type layoutSource interface {
	fetcher
	document(name string) ([]byte, error)
}

// layoutDir is an OCI layout in a directory. os.Root keeps its links inside.
type layoutDir struct{ root *os.Root }

func (l layoutDir) file(name string) (*os.File, error) {
	// A FIFO must not block us, and a device is no layer.
	f, err := l.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (l layoutDir) document(name string) ([]byte, error) {
	f, err := l.file(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readDocument(f)
}

func (l layoutDir) manifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return l.document(blobName(d.Digest.String()))
}

func (l layoutDir) open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return l.file(blobName(d.Digest.String()))
}

// layoutIndex reads oci-layout and index.json.
func layoutIndex(l layoutSource) (*ocispec.Index, error) {
	raw, err := l.document(ocispec.ImageLayoutFile)
	if err != nil {
		return nil, fmt.Errorf("not an OCI layout: %w", err)
	}
	var head ocispec.ImageLayout
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("%w: decode %s: %w", ErrInvalid, ocispec.ImageLayoutFile, err)
	}
	if head.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("%w: OCI layout version %q is not supported", ErrInvalid, clip(head.Version))
	}
	raw, err = l.document(ocispec.ImageIndexFile)
	if err != nil {
		return nil, fmt.Errorf("read OCI layout: %w", err)
	}
	doc, err := decodeDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if n := len(doc.index.Manifests); n == 0 || n > maxImages {
		return nil, fmt.Errorf("%w: %s names %d images, not 1 to %d", ErrInvalid, ocispec.ImageIndexFile, n, maxImages)
	}
	return doc.index, nil
}

// resolveEntries goes from entries of index.json to one image. Several entries
// are the platforms of it.
func resolveEntries(ctx context.Context, l layoutSource, entries []ocispec.Descriptor, want wish) (*found, error) {
	d := entries[0]
	if len(entries) > 1 {
		var err error
		if d, err = choosePlatform(entries, want.Platform); err != nil {
			return nil, err
		}
	}
	raw, err := fetchManifest(ctx, l, d)
	if err != nil {
		return nil, err
	}
	return resolve(ctx, l, raw, d.MediaType, want)
}

// chooseEntries finds the entries of index.json that tag means.
func chooseEntries(x *ocispec.Index, tag string) ([]ocispec.Descriptor, error) {
	groups, names := groupEntries(x)
	if tag == "" {
		if len(groups) == 0 {
			return nil, fmt.Errorf("%w: holds no image", ErrInvalid)
		}
		if len(groups) != 1 {
			return nil, errChoose("", names)
		}
		return groups[0], nil
	}
	for i, n := range names {
		if n == tag {
			return groups[i], nil
		}
	}
	// A whole name may be meant by its tag, and the other way round.
	for i, g := range groups {
		if _, t, ok := strings.Cut(lastPart(g[0].Annotations[annotationName]), ":"); ok && t == tag {
			return groups[i], nil
		}
		if full := g[0].Annotations[annotationName]; full != "" && sameName(full, tag) {
			return groups[i], nil
		}
	}
	return nil, errChoose(tag, slices.DeleteFunc(names, func(n string) bool { return n == "" }))
}

func lastPart(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

func sameName(a, b string) bool {
	x, err1 := parseNamed(a)
	y, err2 := parseNamed(b)
	return err1 == nil && err2 == nil && x.String() == y.String()
}

// groupEntries puts the entries of one name together: they are its platforms.
// Entries without a name and without a platform stand for themselves.
func groupEntries(x *ocispec.Index) (groups [][]ocispec.Descriptor, names []string) {
	for _, d := range x.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		name := d.Annotations[annotationRef]
		if name == "" {
			name = d.Annotations[annotationName]
		}
		at := slices.Index(names, name)
		if at >= 0 && (name != "" || d.Platform != nil && groups[at][0].Platform != nil) {
			groups[at] = append(groups[at], d)
			continue
		}
		groups, names = append(groups, []ocispec.Descriptor{d}), append(names, name)
	}
	return groups, names
}

// entryNames gives the whole names, in normal form, of an entry of index.json.
// A mere tag names nothing outside its layout.
func entryNames(d ocispec.Descriptor) []string {
	for _, key := range []string{annotationName, annotationRef} {
		v := d.Annotations[key]
		if v == "" || key == annotationRef && !strings.ContainsAny(v, "/:") {
			continue
		}
		if named, err := parseNamed(v); err == nil {
			if _, pinned := named.(reference.Digested); !pinned {
				return []string{reference.FamiliarString(named)}
			}
		}
	}
	return nil
}

// pullLayout stores the image of a layout that t means.
func (s *Store) pullLayout(ctx context.Context, l layoutSource, t target, want wish, p Progress) (*Image, error) {
	x, err := layoutIndex(l)
	if err != nil {
		return nil, err
	}
	entries, err := chooseEntries(x, t.tag)
	if err != nil {
		return nil, err
	}
	img, err := resolveEntries(ctx, l, entries, want)
	if err != nil {
		return nil, err
	}
	return s.add(ctx, img, naming{names: []string{t.String()}}, p)
}
