package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const someDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func TestNormalize(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"nginx":                               "nginx:latest",
		"nginx:1.27":                          "nginx:1.27",
		"docker.io/nginx":                     "nginx:latest",
		"index.docker.io/library/nginx":       "nginx:latest",
		"docker.io/library/nginx:1":           "nginx:1",
		"someone/app":                         "someone/app:latest",
		"example.com/a/b:c":                   "example.com/a/b:c",
		"localhost/app":                       "localhost/app:latest",
		"localhost:5000/app:x":                "localhost:5000/app:x",
		"127.0.0.1:5000/app":                  "127.0.0.1:5000/app:latest",
		"[::1]:5000/app":                      "[::1]:5000/app:latest",
		"nginx@" + someDigest:                 "nginx@" + someDigest,
		"nginx:1.27@" + someDigest:            "nginx@" + someDigest,
		"localhost:5000/a:b@" + someDigest:    "localhost:5000/a@" + someDigest,
		"oci:/srv/dir":                        "oci:/srv/dir",
		"oci:/srv/../srv/dir/:v1":             "oci:/srv/dir:v1",
		"oci:dir:v1":                          "oci:" + filepath.Join(wd, "dir") + ":v1",
		"oci-archive:/f.tar:a/b:c":            "oci-archive:/f.tar:a/b:c",
		"docker-archive:/f.tar":               "docker-archive:/f.tar",
		"docker-archive:/f.tar:nginx":         "docker-archive:/f.tar:nginx:latest",
		"docker-archive:/f.tar:docker.io/a/b": "docker-archive:/f.tar:a/b:latest",
		"docker-daemon:nginx":                 "docker-daemon:nginx:latest",
		"oci":                                 "docker.io/library/oci:latest",
	} {
		got, err := Normalize(in)
		if err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
		again, err := Normalize(got)
		if err != nil || again != got {
			t.Errorf("Normalize(%q) = %q, %v: not stable", got, again, err)
		}
	}
}

func TestBadReferences(t *testing.T) {
	for _, in := range []string{
		"", ":", "@", "NGINX", "a//b", "-a", "a:", "a:b:c", "a b", "a\nb", "../a", "/a", "a/../b", "http://x/y", "https://x/y",
		"a@sha256:abc", "a@sha256:../../../x", "a@md5:d41d8cd98f00b204e9800998ecf8427e", "a@" + strings.ToUpper(someDigest),
		"a@sha512:" + strings.Repeat("a", 128), strings.TrimPrefix(someDigest, "sha256:"), strings.Repeat("a", 5000),
		"oci:", "oci::tag", "oci:/d:", "oci:/a\x00b", "docker-archive:/f:B@D", "docker-daemon:", "docker-daemon:X",
	} {
		if got, err := parseTarget(in); !errors.Is(err, ErrReference) {
			t.Errorf("parseTarget(%q) = %v, %v; want ErrReference", in, got, err)
		}
	}
}

func TestCheckDigest(t *testing.T) {
	if err := checkDigest(someDigest); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:..", "sha256:../../x", someDigest + "0", someDigest[:70],
		strings.ToUpper(someDigest), "SHA256" + someDigest[6:], " " + someDigest, someDigest[7:],
		"sha256:" + strings.Repeat("/", 64), "sha256:" + strings.Repeat("g", 64)} {
		if err := checkDigest(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("checkDigest(%q) = %v", bad, err)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:5000": true, "[::1]": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "example.com": false, "localhost.example.com": false,
		"127.0.0.1.example.com": false, "": false, "docker.io": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %t", host, got)
		}
	}
}

func TestIsLocal(t *testing.T) {
	for ref, want := range map[string]bool{"oci:/d": true, "docker-archive:/f": true, "docker-daemon:a": true, "nginx": false, "oci": false, "::": false} {
		if got := IsLocal(ref); got != want {
			t.Errorf("IsLocal(%q) = %t", ref, got)
		}
	}
}

func plat(s string) *ocispec.Platform {
	parts := append(strings.Split(s, "/"), "", "")
	return &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "amd64": "linux/amd64", "x86_64": "linux/amd64", "linux/x86-64": "linux/amd64",
		"linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "aarch64": "linux/arm64", "linux/arm": "linux/arm/v7",
		"linux/arm/v6": "linux/arm/v6", "linux/arm/7": "linux/arm/v7", "Linux/AMD64": "linux/amd64", "linux/386": "linux/386",
		"linux/amd64/v3": "linux/amd64/v3", "windows/amd64": "windows/amd64", "s390x": "linux/s390x",
	} {
		p, err := parsePlatform(in)
		if err != nil || platformString(p) != want {
			t.Errorf("parsePlatform(%q) = %s, %v; want %s", in, platformString(p), err, want)
		}
	}
	for _, bad := range []string{"a/b/c/d", "/", "linux/", "linux/am d64", "linux/amd64/", "linux/\n"} {
		if _, err := parsePlatform(bad); !errors.Is(err, ErrReference) {
			t.Errorf("parsePlatform(%q) = %v", bad, err)
		}
	}
}

func TestChoosePlatform(t *testing.T) {
	index := func(ps ...string) (all []ocispec.Descriptor) {
		for i, p := range ps {
			d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Size: int64(i)}
			switch p {
			case "none":
			case "attestation":
				d.Platform = plat("unknown/unknown")
			default:
				d.Platform = plat(p)
			}
			all = append(all, d)
		}
		return all
	}
	for _, tc := range []struct {
		want string
		have []string
		pick int64 // -1: an error
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64"}, 1},
		{"linux/amd64", []string{"attestation", "windows/amd64", "linux/amd64/v1"}, 2},
		{"linux/amd64", []string{"linux/amd64/v3", "linux/amd64"}, 1},
		{"linux/amd64/v3", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, 1},
		{"linux/amd64", []string{"linux/amd64/v3"}, -1},
		{"linux/arm/v7", []string{"linux/arm/v5", "linux/arm/v6", "linux/arm64"}, 1},
		{"linux/arm/v6", []string{"linux/arm/v7", "linux/arm/v5"}, 1},
		{"linux/arm64", []string{"linux/arm64/v8"}, 0},
		{"linux/amd64", []string{"none"}, 0},
		{"linux/amd64", []string{"none", "none"}, -1},
		{"linux/amd64", []string{"none", "linux/arm64"}, -1},
		{"linux/amd64", []string{"attestation"}, -1},
		{"linux/amd64", nil, -1},
	} {
		p, err := parsePlatform(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := choosePlatform(index(tc.have...), p)
		if tc.pick < 0 && err == nil || tc.pick >= 0 && (err != nil || d.Size != tc.pick) {
			t.Errorf("%s of %v: picked %d, %v; want %d", tc.want, tc.have, d.Size, err, tc.pick)
		}
	}
	_, err := choosePlatform(index("linux/arm64/v8", "linux/s390x", "attestation"), *plat("linux/amd64"))
	wantErr(t, err, ErrPlatform, "image for another platform", "wanted linux/amd64", "available: linux/arm64/v8, linux/s390x")
}

func TestFits(t *testing.T) {
	img := &Image{Config: ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}}
	for platform, want := range map[string]bool{"linux/arm64": true, "arm64": true, "linux/arm64/v8": true, "linux/amd64": false} {
		if got, err := img.Fits(platform); got != want || err != nil {
			t.Errorf("Fits(%s) = %t, %v", platform, got, err)
		}
	}
	if _, err := img.Fits("a/b/c/d"); !errors.Is(err, ErrReference) {
		t.Error(err)
	}
}
