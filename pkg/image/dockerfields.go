package image

import (
	"encoding/json"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Settings are an image's "config" with the fields that docker has and the
// OCI's specification has not.
type Settings struct {
	ocispec.ImageConfig
	Healthcheck *Healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// Healthcheck is HEALTHCHECK; zero durations and retries are docker's defaults.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", ARG...} or {"CMD-SHELL", COMMAND}.
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// DockerImage is an image's config file as docker writes it.
type DockerImage struct {
	ocispec.Image
	Config        Settings `json:"config"`
	Comment       string   `json:"comment,omitempty"`
	DockerVersion string   `json:"docker_version,omitempty"`
}

// Docker decodes the config with docker's fields. What docker's fields hold has
// not been checked by anybody: a wrong type is an error.
func (i *Image) Docker() (*DockerImage, error) {
	var d DockerImage
	if err := json.Unmarshal(i.Raw, &d); err != nil {
		return nil, fmt.Errorf("%w: decode config of %s: %w", ErrInvalid, shortID(i.ID), err)
	}
	return &d, nil
}
