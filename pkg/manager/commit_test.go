package manager

import (
	"reflect"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/state"
)

// What Create made of an image's settings and a user's is turned back.
func TestCommittedSettings(t *testing.T) {
	img := &image.Image{DiffIDs: []string{"sha256:x"}}
	img.Config.Config = ocispec.ImageConfig{
		Env: []string{"A=1", "B=2"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, User: "alice", WorkingDir: "/w",
		Labels: map[string]string{"l": "1"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/v": {}},
	}
	health := &image.Healthcheck{Test: []string{"CMD", "x"}}
	base := image.Settings{ImageConfig: img.Config.Config, Healthcheck: health, OnBuild: []string{"RUN x"}}
	tests := map[string]struct {
		o    CreateOptions
		base func(*ocispec.ImageConfig)
		want func(*image.Settings)
	}{
		"as it was": {},
		"terminal":  {o: CreateOptions{TTY: true}},
		"the user's": {o: CreateOptions{
			Command: []string{"d"}, Env: []string{"B=3", "C=4", "A"}, User: "0", Workdir: "/x", StopSignal: "KILL",
			Labels: map[string]string{"m": "2"}, ExposedPorts: []string{"81/udp"},
		}, want: func(s *image.Settings) {
			s.Cmd, s.Env, s.User, s.WorkingDir, s.StopSignal = []string{"d"}, []string{"B=3", "C=4"}, "0", "/x", "SIGKILL"
			s.Labels = map[string]string{"l": "1", "m": "2"}
			s.ExposedPorts = map[string]struct{}{"80/tcp": {}, "81/udp": {}}
		}},
		"entrypoint": {o: CreateOptions{Entrypoint: []string{"/f", "g"}, Command: []string{"h"}}, want: func(s *image.Settings) {
			s.Entrypoint, s.Cmd = []string{"/f", "g"}, []string{"h"}
		}},
		"no entrypoint": {o: CreateOptions{Entrypoint: []string{}, Command: []string{"h"}}, want: func(s *image.Settings) {
			s.Entrypoint, s.Cmd = []string{}, []string{"h"}
		}},
		"the image's own PATH": {
			base: func(c *ocispec.ImageConfig) { c.Env = []string{defaultPath} },
			want: func(s *image.Settings) { s.Env = []string{defaultPath} },
		},
		"the image's own signal": {
			base: func(c *ocispec.ImageConfig) { c.StopSignal = "3" },
			want: func(s *image.Settings) { s.StopSignal = "3" },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, i := base, *img
			if tt.base != nil {
				tt.base(&b.ImageConfig)
			}
			i.Config.Config = b.ImageConfig
			c, err := newConfig(tt.o, &i)
			if err != nil {
				t.Fatal(err)
			}
			c.Healthcheck = (*state.Healthcheck)(health) // of the user or the image: Create knows
			want := b
			want.OnBuild = nil
			if tt.want != nil {
				tt.want(&want)
			}
			if got := committedSettings(&c, b); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// A record of before has no entrypoint: all of it is the command.
func TestCommittedOldRecord(t *testing.T) {
	c := state.Config{Args: []string{"/e", "c"}, StopSignal: int(syscall.SIGTERM)}
	if s := committedSettings(&c, image.Settings{}); s.Entrypoint != nil || !reflect.DeepEqual(s.Cmd, c.Args) {
		t.Errorf("%+v", s)
	}
}
