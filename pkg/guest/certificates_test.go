package guest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// What an image has in the place of a bundle decides what lies over it, and
// nothing outside of the image is ever read.
func TestTrust(t *testing.T) {
	canary, _ := tree(t, map[string]string{"file": "canary\n"})
	const debian, fedora, extracted = "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
	alone := map[string]string{api.CABundle: "more\n", api.CAExtra: "more\n"}
	over := func(p, text string) map[string]string {
		return map[string]string{p: text, api.CABundle: text, api.CAExtra: "more\n"}
	}
	tests := map[string]struct {
		image map[string]string
		spoil func(bundle string) error
		want  map[string]string
		none  bool
	}{
		"debian":            {map[string]string{debian: "its own\n"}, nil, over(debian, "its own\n\nmore\n"), false},
		"no end of line":    {map[string]string{debian: "its own"}, nil, over(debian, "its own\nmore\n"), false},
		"two names":         {map[string]string{debian: "its own\n", "/etc/ssl/cert.pem": "->certs/ca-certificates.crt"}, nil, over(debian, "its own\n\nmore\n"), false},
		"fedora":            {map[string]string{extracted: "its own\n", fedora: "->" + extracted, "/etc/ssl/certs": "->../pki/tls/certs"}, nil, over(extracted, "its own\n\nmore\n"), false},
		"dots stay inside":  {map[string]string{"/a": "its own\n", debian: "->../../../../../../../../a"}, nil, over("/a", "its own\n\nmore\n"), false},
		"none":              {nil, nil, alone, true},
		"out of the root":   {map[string]string{debian: "->" + canary + "/file"}, nil, alone, true},
		"out by the folder": {map[string]string{"/etc/ssl": "->" + canary}, nil, alone, true},
		"proc's links":      {map[string]string{debian: "->/proc/1/root" + canary + "/file"}, nil, alone, true},
		"to itself":         {map[string]string{debian: "->ca-certificates.crt"}, nil, alone, true},
		"through a file":    {map[string]string{"/etc/ssl/certs": "no folder\n"}, nil, alone, true},
		"to /etc/hosts":     {map[string]string{debian: "->/etc/hosts", "/etc/hosts": "its own\n"}, nil, alone, true},
		"our link":          {map[string]string{debian: "->" + api.CABundle, api.CABundle: ""}, nil, alone, true},
		"a folder":          {nil, func(p string) error { return os.Mkdir(p, 0o755) }, alone, true},
		"a FIFO":            {nil, func(p string) error { return unix.Mkfifo(p, 0o644) }, alone, true},
		"a socket":          {nil, func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) }, alone, true},
		"a device":          {nil, func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }, alone, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, _ := tree(t, tt.image)
			if tt.spoil != nil {
				spoilBundle(t, dir, tt.spoil)
			}
			files := map[string]string{"/etc/hosts": "ours"}
			none, err := trustIn(t, dir, files)
			if err != nil || none != tt.none {
				t.Errorf("no bundle: %v, %v", none, err)
			}
			delete(files, "/etc/hosts")
			got := map[string]string{}
			for p, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Error(err)
				}
				got[p] = string(b)
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func trustIn(t *testing.T, root string, files map[string]string) (bool, error) {
	t.Helper()
	parent := t.TempDir()
	if err := os.Mkdir(filepath.Join(parent, "c1"), 0o755); err != nil {
		t.Fatal(err)
	}
	return trust(parent, root, api.StartRequest{ID: "c1", CACertificates: "more\n"}, files)
}

// spoilBundle makes something else where an image has its bundle.
func spoilBundle(t *testing.T, root string, make func(string) error) {
	t.Helper()
	p := root + systemBundle
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := make(p); err == unix.EPERM {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func TestTrustBounds(t *testing.T) {
	dir, _ := tree(t, nil)
	spoilBundle(t, dir, func(p string) error {
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(p, 1<<40)
	})
	if _, err := trustIn(t, dir, map[string]string{}); err == nil || err.Error() != "add CA certificates to /etc/ssl/certs/ca-certificates.crt of the image: it is larger than 4194304 bytes" {
		t.Error(err)
	}
	files := map[string]string{}
	if none, err := trust(t.TempDir(), dir, api.StartRequest{ID: "c1"}, files); none || err != nil || len(files) > 0 {
		t.Errorf("without certificates: %v, %v, %v", none, files, err)
	}
	r := stageRequest("")
	r.CACertificates = strings.Repeat("x", api.MaxCACertificates+1)
	if err := checkStart(r); err == nil {
		t.Error("more certificates than there may be are accepted")
	}
}

// A container sees the certificates whatever its image has in their place, and
// what the links of the image lead to is not touched.
func TestStageCertificates(t *testing.T) {
	const show = "cat /etc/micropod/*; echo $REQUESTS_CA_BUNDLE; cat /etc/ssl/certs/ca-certificates.crt"
	tests := map[string]struct {
		spoil func(root, canary string) error
		want  string
	}{
		"no bundle": {func(string, string) error { return nil }, "more\nmore\n\nmore\n"},
		"bundle": {func(root, _ string) error {
			if err := os.MkdirAll(root+"/etc/ssl/certs", 0o755); err != nil {
				return err
			}
			return os.WriteFile(root+systemBundle, []byte("its own\n"), 0o644)
		}, "its own\n\nmore\nmore\n" + api.CABundle + "\nits own\n\nmore\n"},
		"links in the way": {func(root, canary string) error {
			if err := os.Symlink(canary, root+"/etc/micropod"); err != nil {
				return err
			}
			return os.Symlink(canary, root+"/etc/ssl")
		}, "more\nmore\n\ncat: can't open '/etc/ssl/certs/ca-certificates.crt': No such file or directory\n"},
	}
	r := newReaper(false)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root, canary := stageRoot(t)
			if err := tt.spoil(root, canary); err != nil {
				t.Fatal(err)
			}
			for _, readOnly := range []bool{false, true} { // one start after the other
				req := stageRequest(show)
				req.CACertificates = "more\n"
				req.Spec.Process.Env = append(req.Spec.Process.Env, api.CAInstead)
				req.Spec.Root = &specs.Root{Readonly: readOnly}
				if out, _, err := runStage(t, r, root, req); err != nil || out != tt.want {
					t.Errorf("read-only %v: %q, %v; want %q", readOnly, out, err, tt.want)
				}
			}
			entries, err := os.ReadDir(canary)
			if err != nil || len(entries) != 1 {
				t.Errorf("the tree outside has %d entries, %v", len(entries), err)
			}
		})
	}
}

// The files and links that certificates need are no change of the container's,
// until it puts files of its own in their place.
func TestCompareCertificates(t *testing.T) {
	ours := []string{"etc/", "etc/micropod/", "etc/micropod/ca-certificates.crt", "etc/micropod/extra-ca-certificates.crt", "etc/ssl/", "etc/ssl/certs/"}
	tests := map[string]struct {
		lower, more []string
		linked      bool
		want        string
	}{
		"ours":               {nil, nil, true, ""},
		"in the image's":     {[]string{"etc/", "etc/ssl/", "etc/ssl/certs/"}, nil, true, ""},
		"more beside them":   {nil, []string{"etc/ssl/certs/x", "etc/micropod/x"}, true, "C/etc C/etc/micropod A/etc/micropod/x C/etc/ssl C/etc/ssl/certs A/etc/ssl/certs/x"},
		"its own instead":    {nil, []string{"etc/ssl/certs/ca-certificates.crt"}, false, "C/etc A/etc/ssl A/etc/ssl/certs A/etc/ssl/certs/ca-certificates.crt"},
		"a link of its own":  {nil, []string{"etc/ssl/certs/ca-certificates.crt@"}, false, "C/etc A/etc/ssl A/etc/ssl/certs A/etc/ssl/certs/ca-certificates.crt"},
		"folders of its own": {nil, nil, false, "C/etc A/etc/ssl A/etc/ssl/certs"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lower, upper := t.TempDir(), t.TempDir()
			grow(t, lower, tt.lower...)
			grow(t, upper, slices.Concat(ours, tt.more)...)
			if tt.linked {
				if err := os.Symlink(api.CABundle, upper+systemBundle); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			err := compare(upper, lower, func(c api.Change, _ *os.File, _ string) error {
				got = append(got, string(c))
				return nil
			})
			if s := strings.Join(got, " "); err != nil || s != tt.want {
				t.Errorf("got %q, %v; want %q", s, err, tt.want)
			}
		})
	}
}
