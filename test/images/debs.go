package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packages fetches packages with apt, which checks them, into dir.
type packages struct{ dir string }

// candidates says which versions of the packages apt would take. It is quick.
func candidates(names ...string) (string, error) {
	var out string
	for _, name := range names {
		b, err := command("apt-cache", "show", "--no-all-versions", name)
		v := regexp.MustCompile(`(?m)^Version: (.*)$`).FindStringSubmatch(string(b))
		if err != nil || v == nil {
			return "", fmt.Errorf("apt knows no package %s; run this once: sudo apt-get update", name)
		}
		out += name + " " + v[1] + "\n"
	}
	return out, nil
}

// closure lists the packages and all that they depend on as name=version, as apt
// would install them on a machine that has nothing.
func closure(names ...string) ([]string, error) {
	out, err := command("apt-get", append([]string{"--simulate", "--quiet", "--no-install-recommends",
		"-o", "Dir::State::status=/dev/null", "-o", "Dir::State::extended_states=/dev/null",
		// The machine's own caches describe its own status; leave them alone.
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"-o", "Debug::NoLocking=1", "install"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("resolve packages %s: %w", strings.Join(names, ", "), err)
	}
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `).FindAllStringSubmatch(string(out), -1) {
		if !slices.Contains(unwanted(), m[1]) {
			list = append(list, m[1]+"="+m[2])
		}
	}
	slices.Sort(list)
	return list, nil
}

// unwanted are packages that only installing needs, and that no image runs.
func unwanted() []string { return []string{"debconf", "dpkg", "tar"} }

// fetch returns the files of packages given as name=version.
func (p packages) fetch(list []string) ([]string, error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	var missing []string
	for _, spec := range list {
		if _, ok := p.find(spec); !ok {
			missing = append(missing, spec)
		}
	}
	if len(missing) > 0 {
		args := append([]string{"--quiet", "-o", "Acquire::Retries=5", "-o", "APT::Sandbox::User=root", "download"}, missing...)
		cmd := exec.Command("apt-get", args...)
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("fetch packages: %w (if the package lists are old: sudo apt-get update)\n%s", err, out)
		}
	}
	var files []string
	for _, spec := range list {
		file, ok := p.find(spec)
		if !ok {
			return nil, fmt.Errorf("fetch packages: no file came for %s", spec)
		}
		files = append(files, file)
	}
	return files, nil
}

// find looks for NAME_VERSION_ARCH.deb, as apt-get download names it.
func (p packages) find(spec string) (string, bool) {
	name, version, _ := strings.Cut(spec, "=")
	version = strings.ReplaceAll(version, ":", "%3a")
	found, err := filepath.Glob(filepath.Join(p.dir, name+"_"+version+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", false
	}
	return found[0], true
}

// addDeb puts the files of a package into t, owners and modes as they are.
func addDeb(t tree, deb string) error {
	b, err := command("dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
		name := merged(h.Name)
		if name == "" || documentation(name) {
			continue
		}
		h.Name = name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = merged(h.Linkname)
		}
		t[name] = entry{h, content}
	}
}

// merged is the place of a file of a package in a file system whose /bin, /sbin
// and /lib are links into /usr, as on every newer Debian; "" for those links.
func merged(name string) string {
	name = strings.Trim(strings.TrimPrefix(name, "./"), "/")
	top, rest, below := strings.Cut(name, "/")
	switch top {
	case "bin", "sbin", "lib", "lib64":
		if !below {
			return ""
		}
		return "usr/" + top + "/" + rest
	}
	return name
}

func documentation(name string) bool {
	for _, p := range []string{"usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale", "usr/share/bug"} {
		if name == p || strings.HasPrefix(name, p+"/") {
			return true
		}
	}
	return false
}

func command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, stderr.Bytes())
	}
	return out, nil
}
