package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// headway is how much must arrive within the idle timeout: a server that
	// drips bytes to hold us is as good as silent.
	headway = 16 << 10
	// renewal is how much new data gives the retries back.
	renewal = 1 << 20
)

// blobReader reads one blob of a registry. When the connection breaks it goes
// on where it stopped, with a Range request. It does not hash: its consumer
// does, over the joined stream.
type blobReader struct {
	ctx   context.Context
	r     *repository
	d     ocispec.Descriptor
	off   int64
	tries attempts
	mark  int64 // off when the retries were last given back
	whole bool  // the server refuses ranges
	// after is the place to go on at when r fails for good; it may be nil.
	after func(r *repository) *repository

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	// idle cancels the request. It runs only while we wait for the network,
	// for what is left of the idle timeout; got counts towards headway.
	idle *time.Timer
	left time.Duration
	got  int64
}

func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.off >= b.d.Size {
			return 0, io.EOF
		}
		if b.body == nil {
			if err := b.connect(); err != nil {
				return 0, err
			}
		}
		n, err := b.readSome(p)
		if n > 0 {
			return n, nil // an error will come again, or heal
		}
		if err == nil {
			continue
		}
		if err := b.again(err); err != nil {
			return 0, fmt.Errorf("download broke off after %d of %d bytes: %w", b.off, b.d.Size, err)
		}
	}
}

// again prepares another try, here or at the next place, or says why there is
// none.
func (b *blobReader) again(err error) error {
	err = b.tries.again(b.ctx, err)
	if err == nil || b.after == nil || b.ctx.Err() != nil {
		return err
	}
	next := b.after(b.r)
	if next == nil {
		return err
	}
	b.r.s.o.Log.Debug("go on at the next host", "host", next.host, "at", b.off, "cause", err)
	b.r, b.tries, b.whole, b.mark = next, attempts{o: &next.s.o}, false, b.off
	return nil
}

// readSome reads from the connection at hand and drops it when it fails.
func (b *blobReader) readSome(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.d.Size-b.off)]
	n, err := b.wait(p)
	b.off += int64(n)
	if b.off-b.mark >= renewal {
		b.tries.done, b.mark = 0, b.off
	}
	if err == nil || b.off >= b.d.Size {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // a short body of unknown length
	}
	err = b.why(err)
	b.drop()
	return n, err
}

// wait is one Read of the body on the idle timer.
func (b *blobReader) wait(p []byte) (int, error) {
	start := time.Now()
	b.idle.Reset(b.left)
	n, err := b.body.Read(p)
	b.idle.Stop()
	b.left -= time.Since(start)
	if b.got += int64(n); b.got >= headway {
		b.left, b.got = b.r.s.o.IdleTimeout, 0
	}
	return n, err
}

// why prefers the reason of our own cancellation.
func (b *blobReader) why(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w for %s", errIdle, b.r.s.o.IdleTimeout)
	}
	return err
}

// connect makes the request for the rest of the blob, with retries.
func (b *blobReader) connect() error {
	for {
		err := b.request()
		if err == nil {
			return nil
		}
		err = b.why(err)
		b.drop()
		if err := b.again(err); err != nil {
			return b.r.explain(err)
		}
	}
}

func (b *blobReader) request() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	b.cancel, b.left, b.got = cancel, b.r.s.o.IdleTimeout, 0
	b.idle = time.AfterFunc(b.r.s.o.IdleTimeout, func() { cancel(errIdle) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.r.url("blobs", b.d.Digest.String()), nil)
	if err != nil {
		return err
	}
	if b.off > 0 && !b.whole {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.r.client.Do(req)
	b.idle.Stop()
	if err != nil {
		return err
	}
	b.body = resp.Body
	return b.accept(resp)
}

// accept checks that the answer goes on where we stopped.
func (b *blobReader) accept(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusPartialContent && b.off > 0:
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != b.off {
			return fmt.Errorf("%w: asked for bytes from %d, got %q", ErrInvalid, b.off,
				printable(resp.Header.Get("Content-Range")))
		}
		return nil
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && b.off > 0 && !b.whole:
		b.whole = true
		return errNoRange
	case resp.StatusCode != http.StatusOK:
		return newStatusError(resp)
	case resp.ContentLength >= 0 && resp.ContentLength != b.d.Size:
		return fmt.Errorf("%w: blob has %d bytes, the manifest says %d", ErrInvalid, resp.ContentLength, b.d.Size)
	}
	return b.skip()
}

// skip reads again what a server without ranges sends again. If the bytes are
// others now, the digest will tell.
func (b *blobReader) skip() error {
	buf := make([]byte, 64<<10)
	for off := int64(0); off < b.off; {
		n, err := b.wait(buf[:min(int64(len(buf)), b.off-off)])
		if off += int64(n); err != nil && off < b.off {
			return fmt.Errorf("read again up to byte %d: %w", b.off, err)
		}
	}
	return nil
}

func (b *blobReader) drop() {
	if b.cancel != nil {
		b.idle.Stop()
		b.cancel(nil)
	}
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close ends the request.
func (b *blobReader) Close() error {
	b.drop()
	return nil
}
