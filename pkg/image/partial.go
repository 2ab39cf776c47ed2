package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/pkg/state"
)

const (
	// minPartial is the size from which a blob is worth being kept in part.
	minPartial = 8 << 20
	// partialLife is how long a part waits for somebody to pull the rest.
	partialLife = 24 * time.Hour
)

// errLayerDone ends what still goes on for a layer that nobody reads any more.
var errLayerDone = errors.New("layer is done with")

// partial reads a large blob and keeps what has come of it in a file, so that a
// pull that was interrupted goes on there the next time. The file is locked: one
// process works at it. Nobody trusts it: the blob's digest is verified over what
// comes out of here, as ever. A part that turns out to be bad costs one pull.
type partial struct {
	ctx  context.Context
	d    ocispec.Descriptor
	l    *state.FileLock
	path string
	rest func(off int64) (io.ReadCloser, error) // of the blob, from off
	body io.ReadCloser

	had  int64 // bytes that were there
	off  int64
	lost bool // the file does not hold what was read
	cut  bool // the rest did not come
}

// openPartial returns nil when the file cannot be had: another process has it,
// or the disk is full. The blob is then read without it.
func (s *Store) openPartial(ctx context.Context, d ocispec.Descriptor, rest func(int64) (io.ReadCloser, error)) *partial {
	path := filepath.Join(s.dir, dirPartial, hexOf(d.Digest.String()))
	l, err := state.TryLock(path)
	if err != nil {
		s.o.Log.Debug("download is not kept in part", "blob", d.Digest, "cause", err)
		return nil
	}
	p := &partial{ctx: ctx, d: d, l: l, path: path, rest: rest}
	if st, err := l.File().Stat(); err == nil && st.Size() <= d.Size {
		p.had = st.Size()
	} else if l.File().Truncate(0) != nil {
		p.lost = true
	}
	if p.had > 0 {
		s.o.Log.Debug("download goes on", "blob", d.Digest, "at", p.had)
	}
	return p
}

func (p *partial) Read(b []byte) (int, error) {
	if p.off >= p.d.Size {
		return 0, io.EOF
	}
	if p.off < p.had {
		n, err := p.l.File().ReadAt(b[:min(int64(len(b)), p.had-p.off)], p.off)
		if n > 0 {
			p.off += int64(n)
			return n, nil
		}
		p.had = p.off // unreadable from here on
		p.lost = err != nil
	}
	n, err := p.network(b)
	if n > 0 && !p.lost {
		_, werr := p.l.File().WriteAt(b[:n], p.off)
		p.lost = werr != nil
	}
	p.off += int64(n)
	p.cut = err != nil && p.off < p.d.Size
	return n, err
}

func (p *partial) network(b []byte) (n int, err error) {
	if p.body == nil {
		if p.body, err = p.rest(p.off); err != nil {
			return 0, err
		}
	}
	return p.body.Read(b)
}

// Close keeps the file only when it is the source that failed, or the pull was
// called off: a blob that was refused starts anew.
func (p *partial) Close() error {
	called := p.ctx.Err() != nil && !errors.Is(context.Cause(p.ctx), errLayerDone)
	if p.lost || p.off >= p.d.Size || !p.cut && !called {
		os.Remove(p.path)
	}
	var err error
	if p.body != nil {
		err = p.body.Close()
	}
	return errors.Join(err, p.l.Unlock())
}

// sweepPartials removes parts that nobody came back for. The store's lock is held.
func (s *Store) sweepPartials() (freed int64) {
	dir := filepath.Join(s.dir, dirPartial)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.o.Log.Warn("sweep image store", "cause", err)
		return 0
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := e.Info()
		if err != nil || time.Since(st.ModTime()) < partialLife {
			continue
		}
		if held, err := state.Held(path); err == nil && !held && os.Remove(path) == nil {
			freed += st.Size()
		}
	}
	return freed
}
