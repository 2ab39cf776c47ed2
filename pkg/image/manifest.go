package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits on documents. Registries accept manifests up to 4 MiB; docker and
// containerd stop near 128 layers.
const (
	maxDocument   = 4 << 20
	maxLayers     = 128
	maxIndexDepth = 3
	maxMediaType  = 255
)

func isManifestType(s string) bool {
	return s == string(types.OCIManifestSchema1) || s == string(types.DockerManifestSchema2)
}

func isIndexType(s string) bool {
	return s == string(types.OCIImageIndex) || s == string(types.DockerManifestList)
}

func isSchema1Type(s string) bool {
	return s == string(types.DockerManifestSchema1) || s == string(types.DockerManifestSchema1Signed)
}

// acceptManifests is what MicroPod understands, for an Accept header.
func acceptManifests() string {
	return strings.Join([]string{
		string(types.OCIImageIndex), string(types.DockerManifestList),
		string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
	}, ", ")
}

// document is a decoded manifest or index: exactly one of the two is set.
type document struct {
	manifest *ocispec.Manifest
	index    *ocispec.Index
}

// decodeDocument decodes raw, which claims to be of mediaType ("" if nothing
// was claimed). A document that could be read as a manifest and as an index is
// refused: two tools would run two different images under one digest
// (CVE-2021-41190).
func decodeDocument(raw []byte, mediaType string) (document, error) {
	if len(raw) > maxDocument {
		return document{}, fmt.Errorf("%w: manifest is larger than %d bytes", ErrInvalid, maxDocument)
	}
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return document{}, fmt.Errorf("%w: decode manifest: %w", ErrInvalid, err)
	}
	fields, err := topFields(raw)
	if err != nil {
		return document{}, err
	}
	if head.SchemaVersion == 1 || isSchema1Type(head.MediaType) || isSchema1Type(mediaType) {
		return document{}, fmt.Errorf("%w: docker schema 1 manifests are not supported, "+
			"their layers cannot be verified: have the image pushed again with a current tool", ErrInvalid)
	}
	isManifest := fields["layers"] || fields["config"] || fields["fslayers"]
	isIndex := fields["manifests"]
	if isManifest == isIndex {
		return document{}, fmt.Errorf("%w: document is not clearly a manifest or an index "+
			"(manifests: %t, config or layers: %t)", ErrInvalid, isIndex, isManifest)
	}
	for _, claim := range []string{mediaType, head.MediaType} {
		if isManifest && isIndexType(claim) || isIndex && isManifestType(claim) {
			return document{}, fmt.Errorf("%w: document's content does not fit its media type %s", ErrInvalid, claim)
		}
	}
	if mediaType != "" && head.MediaType != "" && mediaType != head.MediaType &&
		(isManifestType(mediaType) || isIndexType(mediaType)) {
		return document{}, fmt.Errorf("%w: document served as %s says that it is %s",
			ErrInvalid, clip(mediaType), clip(head.MediaType))
	}
	if isIndex {
		return decodeIndex(raw)
	}
	return decodeManifest(raw)
}

// topFields names the fields of a JSON object, in lower case, because that is
// how loosely Go's decoder matches them.
func topFields(raw []byte) (map[string]bool, error) {
	var obj map[string]json.RawMessage
	if err := json.Unmarshal(raw, &obj); err != nil {
		return nil, fmt.Errorf("%w: decode manifest: %w", ErrInvalid, err)
	}
	fields := make(map[string]bool, len(obj))
	for k := range obj {
		fields[strings.ToLower(k)] = true
	}
	return fields, nil
}

func decodeIndex(raw []byte) (document, error) {
	var x ocispec.Index
	if err := json.Unmarshal(raw, &x); err != nil {
		return document{}, fmt.Errorf("%w: decode index: %w", ErrInvalid, err)
	}
	for i, d := range x.Manifests {
		if err := checkDescriptor(d, maxDocument); err != nil {
			return document{}, fmt.Errorf("index entry %d: %w", i, err)
		}
	}
	return document{index: &x}, nil
}

func decodeManifest(raw []byte) (document, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return document{}, fmt.Errorf("%w: decode manifest: %w", ErrInvalid, err)
	}
	if err := checkDescriptor(m.Config, maxDocument); err != nil {
		return document{}, fmt.Errorf("manifest's config: %w", err)
	}
	if err := checkConfigType(m.Config.MediaType); err != nil {
		return document{}, err
	}
	if len(m.Layers) > maxLayers {
		return document{}, fmt.Errorf("%w: %d layers, at most %d are supported", ErrInvalid, len(m.Layers), maxLayers)
	}
	for i, d := range m.Layers {
		if err := checkDescriptor(d, maxLayerBytes); err != nil {
			return document{}, fmt.Errorf("manifest's layer %d: %w", i, err)
		}
		if err := checkLayerType(d.MediaType); err != nil {
			return document{}, fmt.Errorf("manifest's layer %d: %w", i, err)
		}
	}
	return document{manifest: &m}, nil
}

func checkDescriptor(d ocispec.Descriptor, most int64) error {
	if err := checkDigest(d.Digest.String()); err != nil {
		return err
	}
	if d.Size < 0 || d.Size > most {
		return fmt.Errorf("%w: size %d of %s is not within 0 and %d", ErrInvalid, d.Size, d.Digest, most)
	}
	if len(d.MediaType) > maxMediaType {
		return fmt.Errorf("%w: media type of %s is longer than %d bytes", ErrInvalid, d.Digest, maxMediaType)
	}
	return nil
}

func checkConfigType(s string) error {
	switch types.MediaType(s) {
	case types.OCIConfigJSON, types.DockerConfigJSON, "":
		return nil
	}
	return fmt.Errorf("%w: not a container image: its config is of type %q", ErrInvalid, clip(s))
}

func checkLayerType(s string) error {
	switch types.MediaType(s) {
	case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer,
		types.DockerLayer, types.DockerUncompressedLayer, types.DockerForeignLayer,
		types.OCIRestrictedLayer, types.OCIUncompressedRestrictedLayer,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar.zstd":
		return nil
	}
	if strings.HasSuffix(s, "+encrypted") {
		return fmt.Errorf("%w: encrypted layers are not supported", ErrInvalid)
	}
	return fmt.Errorf("%w: layer media type %q is not supported", ErrInvalid, clip(s))
}

// readDocument reads a whole small document.
func readDocument(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if n > maxDocument {
		return nil, fmt.Errorf("%w: document is larger than %d bytes", ErrInvalid, maxDocument)
	}
	return b.Bytes(), nil
}
