package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/micropod/micropod/pkg/archive"
	"github.com/micropod/micropod/pkg/manager"
)

// copyOptions are the flags of cp.
type copyOptions struct{ owners, follow, quiet bool }

func newCopyCommand(a *app) *cobra.Command {
	var o copyOptions
	c := newVerb("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  micropod cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		"Copy files/folders between a container and the local filesystem", arguments(2, 2), nil)
	f := c.Flags()
	f.BoolVarP(&o.owners, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symlinks in SRC_PATH")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !f.Changed("quiet") {
			o.quiet = !isTerminal(a.out)
		}
		return a.copy(c.Context(), args[0], args[1], o)
	}
	return c
}

// copy finds out which of the two is in a container.
func (a *app) copy(ctx context.Context, src, dst string, o copyOptions) error {
	switch {
	case src == "":
		return errors.New("source can not be empty")
	case dst == "":
		return errors.New("destination can not be empty")
	}
	from, srcPath := splitCopyArg(src)
	to, dstPath := splitCopyArg(dst)
	switch {
	case from != "" && to != "":
		return errors.New("copying between containers is not supported")
	case from == "" && to == "":
		return errors.New("must specify at least one container source")
	case from != "":
		if err := checkOutputPath(dstPath); err != nil {
			return err
		}
		return a.withFiles(ctx, from, srcPath, func(f *manager.Files, p string) error { return a.copyFrom(ctx, f, p, dstPath, o) })
	}
	return a.withFiles(ctx, to, dstPath, func(f *manager.Files, p string) error { return a.copyTo(ctx, srcPath, f, p, o) })
}

// splitCopyArg tells CONTAINER:PATH from a local path, in which a colon may be.
func splitCopyArg(arg string) (container, p string) {
	container, p, ok := strings.Cut(arg, ":")
	if !ok || path.IsAbs(arg) || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, p
}

// checkOutputPath refuses a destination before anything is done for it.
func checkOutputPath(p string) error {
	dir := filepath.Dir(filepath.Clean(p))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	st, err := os.Stat(p)
	if err == nil && noDestination(st.Mode()) {
		return fmt.Errorf("invalid output path: %q must be a directory or a regular file", p)
	}
	return nil
}

// noDestination reports whether a file can be no destination: a device, which
// would be replaced where its user meant to write to it.
func noDestination(m fs.FileMode) bool { return m&(fs.ModeDevice|fs.ModeIrregular) != 0 }

// withFiles opens the files of a container for a path in it.
func (a *app) withFiles(ctx context.Context, ref, p string, do func(f *manager.Files, p string) error) (err error) {
	if p == "" {
		return errors.New("the path in the container cannot be empty")
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	f, err := m.OpenFiles(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return do(f, archive.Keep(path.Join("/", p), p))
}

func (a *app) copyFrom(ctx context.Context, f *manager.Files, src, dst string, o copyOptions) error {
	from := archive.End{Path: src, Exists: true}
	if o.follow {
		// One that cannot be looked at is reported below.
		info, err := f.Stat(ctx, src)
		if err == nil && info.Mode.Type() == fs.ModeSymlink {
			from.Path, from.Rename = archive.Follow(src, info.LinkTarget)
		}
	}
	r, info, err := f.Archive(ctx, from.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	if dst == "-" {
		_, err := io.Copy(a.out, r)
		return err
	}
	from.IsDir = info.Mode.IsDir()
	to, err := archive.Destination(dst)
	if err != nil {
		return err
	}
	place, err := archive.Place(from, to)
	if err != nil {
		return err
	}
	size, err := extractHere(r, place, o.owners)
	if err != nil {
		return err
	}
	return a.copied(size, to.Path, o)
}

// extractHere extracts what came from a container. Its owners are this process's
// user, or those of the archive where that may give files away.
func extractHere(r io.Reader, place archive.Placement, owners bool) (size int64, err error) {
	root, err := os.OpenRoot(place.Dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	t := archive.Target{Root: root, From: place.From, To: place.To}
	if owners && os.Geteuid() == 0 {
		t.Owner = func(uid, gid int) (int, int) { return uid, gid }
	}
	n := &countingReader{r: r}
	err = archive.Extract(n, t)
	return n.n, err
}

func (a *app) copyTo(ctx context.Context, src string, f *manager.Files, dst string, o copyOptions) error {
	to := archive.End{Path: dst}
	info, err := f.Stat(ctx, dst)
	if err == nil && info.Mode.Type() == fs.ModeSymlink {
		to.Path = info.LinkTarget
		info, err = f.Stat(ctx, to.Path)
	}
	switch {
	case err == nil && noDestination(info.Mode):
		return fmt.Errorf(`destination "%s:%s" must be a directory or a regular file`, f.Name(), dst)
	case err == nil:
		to.Exists, to.IsDir = true, info.Mode.IsDir()
	case !errors.Is(err, manager.ErrNotFound):
		return err
	}
	if src == "-" {
		if !to.IsDir {
			return fmt.Errorf(`destination "%s:%s" must be a directory`, f.Name(), dst)
		}
		return f.Extract(ctx, to.Path, a.in, o.owners)
	}
	from, err := archive.Source(src, o.follow)
	if err != nil {
		return err
	}
	place, err := archive.Place(from, to)
	if err != nil {
		return err
	}
	return a.send(ctx, f, from.Path, place, o)
}

// send archives a local path into a directory of the container.
func (a *app) send(ctx context.Context, f *manager.Files, src string, place archive.Placement, o copyOptions) error {
	dir, name, err := archive.Open(src)
	if err != nil {
		return err
	}
	defer dir.Close()
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		tw := archive.NewWriter(w)
		err := tw.Add(dir, name, place.To)
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	n := &countingReader{r: r}
	if err := f.Extract(ctx, place.Dir, n, o.owners); err != nil {
		return err
	}
	return a.copied(n.n, f.Name()+":"+place.Dir, o)
}

func (a *app) copied(size int64, to string, o copyOptions) error {
	if o.quiet {
		return nil
	}
	_, err := fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(size), 3), escape(to))
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
