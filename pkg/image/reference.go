package image

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
)

// sourceKind is where a reference points.
type sourceKind string

const (
	fromRegistry      sourceKind = ""
	fromLayout        sourceKind = "oci"
	fromOCIArchive    sourceKind = "oci-archive"
	fromDockerArchive sourceKind = "docker-archive"
	fromDaemon        sourceKind = "docker-daemon"
)

// maxReference bounds a reference, in bytes, before it is parsed.
const maxReference = 4096

// target is a parsed reference.
type target struct {
	kind sourceKind
	// path is absolute, for a layout or an archive.
	path string
	// tag selects an image inside a layout or an archive; "" is the only one.
	tag string
	// named is the repository with a tag or a digest, for a registry and the
	// daemon.
	named reference.Named
}

// parseTarget understands every form that Pull takes. As in skopeo, the first
// colon ends a path: a path with a colon cannot be written.
func parseTarget(s string) (target, error) {
	if len(s) > maxReference {
		return target{}, fmt.Errorf("%w: longer than %d bytes", ErrReference, maxReference)
	}
	kind, rest, ok := strings.Cut(s, ":")
	if ok {
		switch k := sourceKind(kind); k {
		case fromLayout, fromOCIArchive, fromDockerArchive:
			return parsePathTarget(k, rest)
		case fromDaemon:
			named, err := parseNamed(rest)
			if err != nil {
				return target{}, err
			}
			return target{kind: k, named: named}, nil
		}
	}
	named, err := parseNamed(s)
	if err != nil {
		return target{}, err
	}
	return target{named: named}, nil
}

// parseTag parses a name that can be given to an image.
func parseTag(s string) (target, error) {
	t, err := parseTarget(s)
	if err == nil && (t.kind != fromRegistry || t.digest() != "") {
		err = fmt.Errorf("%w: %q is not name[:tag]", ErrReference, clip(s))
	}
	return t, err
}

func isSourceKind(s string) bool {
	switch sourceKind(s) {
	case fromLayout, fromOCIArchive, fromDockerArchive, fromDaemon:
		return true
	}
	return false
}

func parsePathTarget(kind sourceKind, rest string) (target, error) {
	path, tag, tagged := strings.Cut(rest, ":")
	if path == "" {
		return target{}, fmt.Errorf("%w: %s: names no path", ErrReference, kind)
	}
	if strings.ContainsFunc(rest, isControl) {
		return target{}, fmt.Errorf("%w: %q holds control characters", ErrReference, clip(rest))
	}
	if tagged && tag == "" {
		return target{}, fmt.Errorf("%w: %s:%s: the tag after the colon is empty", ErrReference, kind, clip(rest))
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return target{}, fmt.Errorf("resolve %s: %w", path, err)
	}
	if tag != "" && kind == fromDockerArchive {
		named, err := parseNamed(tag)
		if err != nil {
			return target{}, err
		}
		tag = reference.FamiliarString(named)
	}
	return target{kind: kind, path: abs, tag: tag}, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// parseNamed parses a name in docker's grammar; without tag and digest it gets
// the tag latest, and a tag beside a digest is dropped, as docker does.
func parseNamed(s string) (reference.Named, error) {
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		return nil, fmt.Errorf("%w: %q: leave the https:// away", ErrReference, clip(s))
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrReference, clip(s), err)
	}
	if d, ok := named.(reference.Digested); ok {
		if err := checkDigest(d.Digest().String()); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrReference, clip(s), err)
		}
		return reference.WithDigest(reference.TrimNamed(named), d.Digest())
	}
	return reference.TagNameOnly(named), nil
}

// digest is the digest that the reference is pinned to, "" if it has a tag.
func (t target) digest() string {
	if d, ok := t.named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return ""
}

// String is the one spelling under which an image of this target is stored:
// docker's short form of a name, and the prefix and absolute path of a local
// source, so that the same string finds the image again.
func (t target) String() string {
	switch t.kind {
	case fromRegistry:
		if isSourceKind(reference.FamiliarName(t.named)) {
			return t.named.String() // "oci:latest" would be a layout
		}
		return reference.FamiliarString(t.named)
	case fromDaemon:
		return string(t.kind) + ":" + reference.FamiliarString(t.named)
	}
	s := string(t.kind) + ":" + t.path
	if t.tag != "" {
		s += ":" + t.tag
	}
	return s
}

// repository is the name without tag and digest, as docker shows it.
func (t target) repository() string {
	if t.named == nil {
		return ""
	}
	return reference.FamiliarName(t.named)
}

// IsLocal reports whether ref names a layout, an archive or the Docker daemon
// of this machine. Pulling such a source again is cheap when nothing changed,
// and the only way to see that it did.
func IsLocal(ref string) bool {
	t, err := parseTarget(ref)
	return err == nil && t.kind != fromRegistry
}

// Normalize gives the spelling under which an image pulled as ref is listed.
func Normalize(ref string) (string, error) {
	t, err := parseTarget(ref)
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// FullName gives a name of a registry with everything that docker's short form
// leaves out: "docker.io/library/nginx:latest".
func FullName(ref string) (string, error) {
	t, err := parseTarget(ref)
	if err != nil {
		return "", err
	}
	if t.kind != fromRegistry {
		return "", fmt.Errorf("%w: %q is no name in a registry", ErrReference, clip(ref))
	}
	return t.named.String(), nil
}

// Repository is FullName without the tag or digest.
func Repository(ref string) (string, error) {
	full, err := FullName(ref)
	if err != nil {
		return "", err
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrReference, err)
	}
	return named.Name(), nil
}
