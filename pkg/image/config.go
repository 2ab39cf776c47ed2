package image

import (
	"encoding/json"
	"fmt"
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// decodeConfig decodes an image's config and checks what the rest of MicroPod
// relies on. No layer at all is legal here: such an image can be listed, and
// running it is the caller's error.
func decodeConfig(raw []byte) (*ocispec.Image, []string, error) {
	if len(raw) > maxDocument {
		return nil, nil, fmt.Errorf("%w: config is larger than %d bytes", ErrInvalid, maxDocument)
	}
	var c ocispec.Image
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, nil, fmt.Errorf("%w: decode config: %w", ErrInvalid, err)
	}
	if t := c.RootFS.Type; t != "" && t != "layers" {
		return nil, nil, fmt.Errorf("%w: config's rootfs is of type %q, not layers", ErrInvalid, clip(t))
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, nil, fmt.Errorf("%w: config names %d layers, at most %d are supported",
			ErrInvalid, len(c.RootFS.DiffIDs), maxLayers)
	}
	diffIDs := make([]string, len(c.RootFS.DiffIDs))
	for i, d := range c.RootFS.DiffIDs {
		diffIDs[i] = d.String()
		if err := checkDigest(diffIDs[i]); err != nil {
			return nil, nil, fmt.Errorf("config's diff_ids[%d]: %w", i, err)
		}
	}
	if n := layersInHistory(c.History); n > len(diffIDs) {
		return nil, nil, fmt.Errorf("%w: config's history makes %d layers, its diff_ids name %d",
			ErrInvalid, n, len(diffIDs))
	}
	return &c, diffIDs, nil
}

// layersInHistory counts the steps that made a layer. Fewer than there are
// layers is common (many tools write no history); more is a contradiction.
func layersInHistory(history []ocispec.History) int {
	n := 0
	for _, h := range history {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

// ownPlatform is the platform of a stored image in normal form; what its config
// leaves open is this machine's.
func ownPlatform(c *ocispec.Image) ocispec.Platform {
	p := c.Platform
	p.OS, p.Architecture = or(p.OS, "linux"), or(p.Architecture, runtime.GOARCH)
	return normalizePlatform(p)
}

// checkPlatform compares an image's own platform with the wanted one. Parts
// that the config leaves open fit everything.
func checkPlatform(c *ocispec.Image, want wish) error {
	if want.lone {
		return nil
	}
	have := normalizePlatform(c.Platform)
	if have.OS == "" {
		have.OS = want.OS
	}
	if have.Architecture == "" {
		have.Architecture, have.Variant = want.Architecture, want.Variant
	}
	if platformRank(want.Platform, have) == 0 {
		return fmt.Errorf("%w: wanted %s, available: %s", ErrPlatform, platformString(want.Platform), platformString(have))
	}
	return nil
}
