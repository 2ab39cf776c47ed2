package manager

import (
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/pkg/image"
)

func TestPlatformOfAnImage(t *testing.T) {
	for _, c := range []struct {
		os, arch, asked string
		warned, refused bool
	}{
		{"linux", "amd64", "", false, false},
		{"", "", "", false, false},
		{"linux", "arm64", "", true, false},
		{"linux", "arm64", "linux/arm64", false, false}, // asked for
		{"windows", "amd64", "", false, true},
		{"windows", "amd64", "windows/amd64", false, true},
	} {
		warned := ""
		m := &Manager{o: Options{Warn: func(s string) { warned = s }}}
		img := &image.Image{Platform: c.os + "/" + c.arch}
		img.Config.Platform = ocispec.Platform{OS: c.os, Architecture: c.arch}
		err := m.checkPlatform(CreateOptions{Image: "i", Platform: c.asked}, img)
		if (warned != "") != c.warned || (err != nil) != c.refused || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: warning %q, error %v", c, warned, err)
		}
	}
}
