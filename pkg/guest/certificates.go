package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// systemBundle is where most programs look first, and where there is none a
// package manager will put one.
const systemBundle = "/etc/ssl/certs/ca-certificates.crt"

// systemBundles are the places at which Linux distributions keep the CA
// certificates that they trust (crypto/x509, root_linux.go), in the order in
// which Go looks for them.
func systemBundles() []string {
	return []string{
		systemBundle,
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	}
}

// maxBundle bounds a bundle of the image, in bytes: those of distributions have
// a quarter of a MiB, and the guest keeps a copy in its memory.
const maxBundle = 4 << 20

// trust writes the files by which a container trusts the CA certificates that it
// was given, and adds them to files by their path in the container. A bundle of
// the image gets them at its end: what is there is a copy of it, over it. If the
// image has none, none is true, and a link has to stand for it: a file over a file
// could not be replaced by the package that brings the image's own.
func trust(parent, rootDir string, r api.StartRequest, files map[string]string) (none bool, err error) {
	if r.CACertificates == "" {
		return false, nil
	}
	root, err := openRoot(rootDir)
	if err != nil {
		return false, err
	}
	defer root.close()
	dir := filepath.Join(parent, r.ID)
	bundles, err := copyBundles(root, dir, r.CACertificates, files)
	if err != nil {
		return false, err
	}
	extra := filepath.Join(dir, "extra")
	if err := os.WriteFile(extra, []byte(r.CACertificates), 0o644); err != nil {
		return false, err
	}
	files[api.CAExtra], files[api.CABundle] = extra, extra
	if len(bundles) > 0 {
		files[api.CABundle] = files[bundles[0]]
	}
	return len(bundles) == 0, nil
}

// copyBundles copies the bundles of the image, with more at their end. It returns
// their paths, which no link is part of.
func copyBundles(root imageRoot, dir, more string, files map[string]string) ([]string, error) {
	var found []string
	for _, name := range systemBundles() {
		// What cannot be opened, or is no file, is a bundle to nobody.
		f, err := root.open(name)
		if err != nil {
			continue
		}
		to := filepath.Join(dir, fmt.Sprintf("bundle-%d", len(found)))
		p, err := root.addTo(f, to, more, files)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("add CA certificates to %s of the image: %w", name, err)
		}
		if p != "" {
			found = append(found, p)
		}
	}
	return found, nil
}

// addTo copies one bundle, adds it to files and returns its path; "" if it is
// there by another name already, or is a link to a file of ours.
func (r imageRoot) addTo(f *os.File, to, more string, files map[string]string) (string, error) {
	p, err := r.pathOf(f)
	if err != nil || files[p] != "" || path.Dir(p) == api.CADir {
		return "", err
	}
	files[p] = to
	return p, copyBundle(f, to, more)
}

// pathOf is the path in the root of a file that was opened there.
func (r imageRoot) pathOf(f *os.File) (string, error) {
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.fd))
	if err != nil {
		return "", err
	}
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	p, ok := strings.CutPrefix(full, top+"/")
	if !ok {
		return "", fmt.Errorf("%s is not in %s", full, top)
	}
	return "/" + p, nil
}

// copyBundle writes what from has, and more, which begins a line.
func copyBundle(from io.Reader, to, more string) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(from, maxBundle+1))
	if err != nil {
		return err
	}
	if n > maxBundle {
		return fmt.Errorf("it is larger than %d bytes", maxBundle)
	}
	_, err = f.WriteString("\n" + more) // one line break too many harms nobody
	return err
}

// linkBundle puts a link to our bundle where the image has none. What stands in
// the way stays: programs are told by their environment too.
func (s *stage) linkBundle() error {
	if !s.NoBundle {
		return nil
	}
	root, err := openRoot("/")
	if err != nil {
		return err
	}
	dir := root.fd
	for name := range strings.SplitSeq(path.Dir(systemBundle)[1:], "/") {
		next, err := enterPlain(dir, name)
		unix.Close(dir)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("make %s: %w", path.Dir(systemBundle), err)
		}
		dir = next
	}
	defer unix.Close(dir)
	err = unix.Symlinkat(api.CABundle, dir, path.Base(systemBundle))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", systemBundle, err)
	}
	return nil
}

// enterPlain opens the directory name in dir, following no link, and makes it if
// nothing has its name.
func enterPlain(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// trusting is an environment without the variable that takes from programs the
// certificates that they bring along, where the image has none to give instead.
func (s *stage) trusting(env []string) []string {
	if !s.NoBundle {
		return env
	}
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool { return e == api.CAInstead })
}

// isBundleLink reports whether name in dir is the link of linkBundle.
func isBundleLink(dir *os.File, name string) bool {
	buf := make([]byte, len(api.CABundle)+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	return err == nil && string(buf[:n]) == api.CABundle
}

// holdsBundleLink reports whether the directory name in dir, which is p in the
// container, is there because the link of linkBundle is in it or below it.
func holdsBundleLink(dir *os.File, name, p string) bool {
	below, ok := strings.CutPrefix(path.Dir(systemBundle)+"/", p+"/")
	if !ok {
		return false
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(int(dir.Fd()), path.Join(name, below), &how)
	if err != nil {
		return false
	}
	holder := os.NewFile(uintptr(fd), p)
	defer holder.Close()
	return isBundleLink(holder, path.Base(systemBundle))
}
