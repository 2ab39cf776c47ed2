package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parsePlatform reads "os/arch[/variant]", "os" or "arch", in docker's
// spelling; "" is Linux on this machine's architecture.
func parsePlatform(s string) (ocispec.Platform, error) {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if s == "" {
		return normalizePlatform(p), nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.ContainsFunc(parts, func(w string) bool { return !isWord(w) }) {
		return p, fmt.Errorf("%w: platform %q is not os/arch or os/arch/variant", ErrReference, clip(s))
	}
	switch {
	case len(parts) == 1 && !knownOS(parts[0]):
		p.Architecture = parts[0]
	case len(parts) == 1:
		p.OS = parts[0]
	default:
		p.OS, p.Architecture = parts[0], parts[1]
	}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalizePlatform(p), nil
}

func isWord(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '.' && r != '-'
	})
}

func knownOS(s string) bool {
	return slices.Contains([]string{"linux", "windows", "darwin", "freebsd", "macos"}, s)
}

// normalizePlatform folds the spellings in use into one, as containerd does.
func normalizePlatform(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture = strings.ToLower(p.OS), strings.ToLower(p.Architecture)
	p.Variant = strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "8" || p.Variant == "v8"),
		p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	}
	return p
}

func platformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// platformRank says how well have suits want: 0 not at all, more is better. A
// CPU runs what was built for a lower variant of it.
func platformRank(want, have ocispec.Platform) int {
	have = normalizePlatform(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	w, h := variantLevel(want), variantLevel(have)
	if h > w {
		return 0
	}
	return 1 + h
}

// variantLevel orders the variants of one architecture; 0 is the baseline.
func variantLevel(p ocispec.Platform) int {
	v, ok := strings.CutPrefix(p.Variant, "v")
	if !ok || len(v) == 0 || v[0] < '1' || v[0] > '9' {
		return 0
	}
	return int(v[0] - '0')
}

// choosePlatform picks the manifest for want out of an index.
func choosePlatform(all []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	var best, plain ocispec.Descriptor
	var names []string
	rank, plains := 0, 0
	for _, d := range all {
		if !isImageEntry(d) {
			continue
		}
		if d.Platform == nil {
			plain, plains = d, plains+1
			continue
		}
		if n := platformString(*d.Platform); !slices.Contains(names, n) && len(names) < 32 {
			names = append(names, clip(n))
		}
		if r := platformRank(want, *d.Platform); r > rank {
			best, rank = d, r
		}
	}
	switch {
	case rank > 0:
		return best, nil
	case plains == 1 && len(names) == 0:
		return plain, nil // its config will tell
	case len(names) == 0:
		return best, fmt.Errorf("%w: its index names no platform", ErrInvalid)
	}
	return best, fmt.Errorf("%w: wanted %s, available: %s",
		ErrPlatform, platformString(want), strings.Join(names, ", "))
}

// isImageEntry tells images from the attestations that build tools put beside
// them in an index.
func isImageEntry(d ocispec.Descriptor) bool {
	if d.Annotations["vnd.docker.reference.type"] != "" {
		return false
	}
	if d.Platform != nil && d.Platform.OS == "unknown" {
		return false
	}
	return d.MediaType == "" || isManifestType(d.MediaType) || isIndexType(d.MediaType)
}
