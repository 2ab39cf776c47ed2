package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// commitPatience is how many idle timeouts a registry may take to store a blob
// that it has received.
const commitPatience = 10

// compressedLayer is a layer as a registry wants it, in a file without a name.
type compressedLayer struct {
	f      *os.File
	digest string
	size   int64
}

func (c *compressedLayer) close() { c.f.Close() }

func (c *compressedLayer) body() io.Reader { return io.NewSectionReader(c.f, 0, c.size) }

func bytesBody(b []byte) func() io.Reader {
	return func() io.Reader { return bytes.NewReader(b) }
}

// compressLayer makes the gzip form of a layer: the same bytes for the same
// layer. Its digest and size must be known before it is sent, and a broken
// connection must not compress again, so it goes to a file first.
func (s *Store) compressLayer(ctx context.Context, diffID string) (*compressedLayer, error) {
	r, err := s.layers.LayerTar(diffID)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer r.Close()
	f, err := s.tempFile("push")
	if err != nil {
		return nil, err
	}
	c := &compressedLayer{f: f}
	packed, plain := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, packed))
	_, err = io.Copy(io.MultiWriter(z, plain), &ctxReader{ctx: ctx, r: r})
	if err = errors.Join(err, z.Close()); err != nil {
		c.close()
		return nil, fmt.Errorf("compress in %s: %w", s.dir, err)
	}
	if got := digestPrefix + hex.EncodeToString(plain.Sum(nil)); got != diffID {
		c.close()
		return nil, fmt.Errorf("%w: its content is %s: pull or load the image again", ErrDamaged, got)
	}
	c.digest = digestPrefix + hex.EncodeToString(packed.Sum(nil))
	if c.size, err = f.Seek(0, io.SeekCurrent); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// tempFile is a file that goes away with its descriptor, however this process
// ends.
func (s *Store) tempFile(kind string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, dirTmp), kind+"-*")
	if err != nil {
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	return f, nil
}

// hasBlob asks whether the repository has a blob.
func (r *repository) hasBlob(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	there := false
	err := r.s.retry(ctx, func(ctx context.Context) error {
		resp, err := r.send(ctx, http.MethodHead, r.url("blobs", d.Digest.String()), nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			there = true
			return nil
		case http.StatusNotFound:
			return nil
		}
		return newStatusError(resp)
	})
	if err != nil {
		return false, r.explainPush(err)
	}
	return there, nil
}

// mount has the registry take a blob from another repository of its own. A
// registry that will not is no error: the blob is uploaded then.
func (r *repository) mount(ctx context.Context, d ocispec.Descriptor, from string) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, r.s.o.IdleTimeout, errIdle)
	defer cancel()
	q := url.Values{"mount": {d.Digest.String()}, "from": {from}}
	resp, err := r.send(ctx, http.MethodPost, r.url("blobs", "uploads/")+"?"+q.Encode(), nil)
	if err != nil {
		r.s.o.Log.Debug("mount layer", "from", from, "cause", err)
		return false
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		r.cancelUpload(ctx, resp)
	}
	return resp.StatusCode == http.StatusCreated
}

// cancelUpload tells the registry that nothing will come, so that it keeps
// nothing open.
func (r *repository) cancelUpload(ctx context.Context, resp *http.Response) {
	where, err := location(resp)
	if err != nil {
		return
	}
	if resp, err := r.send(ctx, http.MethodDelete, where.String(), nil); err == nil {
		resp.Body.Close()
	}
}

// ensureBlob uploads a blob that is not there.
func (r *repository) ensureBlob(ctx context.Context, d ocispec.Descriptor, body func() io.Reader, moved func(int64)) error {
	there, err := r.hasBlob(ctx, d)
	if err != nil || there {
		return err
	}
	return r.upload(ctx, d, body, moved)
}

// upload sends a blob in one piece, from the start again when the connection
// breaks.
func (r *repository) upload(ctx context.Context, d ocispec.Descriptor, body func() io.Reader, moved func(int64)) error {
	tries := attempts{o: &r.s.o}
	for {
		err := r.tryUpload(ctx, d, body, moved)
		if err == nil {
			return nil
		}
		if err := tries.again(ctx, err); err != nil {
			return r.explainPush(err)
		}
	}
}

func (r *repository) tryUpload(ctx context.Context, d ocispec.Descriptor, body func() io.Reader, moved func(int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(r.s.o.IdleTimeout, func() { cancel(errIdle) })
	defer idle.Stop()
	err := r.sendBlob(ctx, d, func() io.Reader {
		return &uploadReader{r: body(), size: d.Size, moved: moved, idle: idle, patience: r.s.o.IdleTimeout}
	})
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return fmt.Errorf("%w for %s", errIdle, r.s.o.IdleTimeout)
	}
	return err
}

func (r *repository) sendBlob(ctx context.Context, d ocispec.Descriptor, body func() io.Reader) error {
	resp, err := r.send(ctx, http.MethodPost, r.url("blobs", "uploads/"), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return newStatusError(resp)
	}
	where, err := location(resp)
	if err != nil {
		return err
	}
	q := where.Query()
	q.Set("digest", d.Digest.String())
	where.RawQuery = q.Encode()
	done, err := r.send(ctx, http.MethodPut, where.String(), &payload{d.Size, "application/octet-stream", body})
	if err != nil {
		return err
	}
	defer done.Body.Close()
	if done.StatusCode != http.StatusCreated && done.StatusCode != http.StatusNoContent {
		return newStatusError(done)
	}
	return nil
}

// location is where an upload goes on. It may be another host, which gets the
// bytes and no credentials: the auth transport adds them for the registry's own
// host only.
func location(resp *http.Response) (*url.URL, error) {
	l := resp.Header.Get("Location")
	if l == "" {
		return nil, fmt.Errorf("%w: the registry does not say where to upload to", ErrInvalid)
	}
	u, err := url.Parse(l)
	if err != nil {
		return nil, fmt.Errorf("%w: where to upload to: %s", ErrInvalid, printable(err.Error()))
	}
	return resp.Request.URL.ResolveReference(u), nil
}

// uploadReader reports how an upload gets on and keeps it from being idle.
type uploadReader struct {
	r        io.Reader
	n, size  int64
	reported int64
	moved    func(n int64)
	idle     *time.Timer
	patience time.Duration
}

func (u *uploadReader) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.n += int64(n)
	wait := u.patience
	if u.n >= u.size {
		wait *= commitPatience
	}
	u.idle.Reset(wait)
	if u.moved != nil && (u.n-u.reported >= meterStep || u.n == u.size && u.n > u.reported) {
		u.reported = u.n
		u.moved(u.n)
	}
	return n, err
}

// putManifest publishes a manifest under a tag.
func (r *repository) putManifest(ctx context.Context, tag, mediaType string, raw []byte) error {
	body := &payload{int64(len(raw)), mediaType, bytesBody(raw)}
	err := r.s.retry(ctx, func(ctx context.Context) error {
		resp, err := r.send(ctx, http.MethodPut, r.url("manifests", tag), body)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
			return newStatusError(resp)
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != digestOf(raw) {
			return fmt.Errorf("%w: the registry stored %s, not %s", ErrInvalid, printable(got), digestOf(raw))
		}
		return nil
	})
	if err != nil {
		return r.explainPush(err)
	}
	return nil
}

// payload is the body of a request. It can be made again: after a new token,
// a redirect or a broken connection.
type payload struct {
	size      int64
	mediaType string
	open      func() io.Reader
}

func (r *repository) send(ctx context.Context, method, url string, p *payload) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	if p != nil {
		req.Header.Set("Content-Type", p.mediaType)
		req.ContentLength = p.size
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(p.open()), nil }
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return r.client.Do(req)
}

// explainPush is explain for what a push can hear.
func (r *repository) explainPush(err error) error {
	if e := asStatus(err); e != nil && e.status == http.StatusNotFound {
		return fmt.Errorf("the registry has no repository %s: %w", strings.TrimPrefix(r.path, "/"), e)
	}
	return r.explain(err)
}
