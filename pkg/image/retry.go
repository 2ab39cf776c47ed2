package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxPause bounds a pause between attempts, whatever the registry asks for.
const maxPause = 30 * time.Second

var (
	// errIdle ends an attempt that made no headway.
	errIdle = errors.New("registry sends nothing")
	// errNoRange means to try again from the start.
	errNoRange = errors.New("registry refuses to go on in the middle")
)

// statusError is an answer of a registry other than the wished one.
type statusError struct {
	status int
	// detail is the registry's own words, bounded and printable.
	detail string
	after  time.Duration // Retry-After
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("registry answered %d %s", e.status, http.StatusText(e.status))
	if e.detail != "" {
		s += ": " + e.detail
	}
	return s
}

// newStatusError reads what the registry has to say. The body stays open.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{status: resp.StatusCode}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.after = min(time.Duration(n)*time.Second, maxPause)
	}
	var terr *transport.Error
	if errors.As(transport.CheckError(resp), &terr) {
		e.detail = detailOf(terr)
	}
	return e
}

func detailOf(e *transport.Error) string {
	var words []string
	for _, d := range e.Errors[:min(len(e.Errors), 3)] {
		words = append(words, printable(strings.TrimSpace(string(d.Code)+" "+d.Message)))
	}
	return strings.Join(words, "; ")
}

// printable bounds foreign text and keeps it from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, clip(s))
}

// asStatus finds the status in an error of ours or of the auth transport.
func asStatus(err error) *statusError {
	var ours *statusError
	if errors.As(err, &ours) {
		return ours
	}
	var theirs *transport.Error
	if errors.As(err, &theirs) && theirs.StatusCode != 0 {
		return &statusError{status: theirs.StatusCode, detail: detailOf(theirs)}
	}
	return nil
}

// passing reports whether trying again may help.
func passing(err error) bool {
	if e := asStatus(err); e != nil {
		switch e.status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if errors.Is(err, errIdle) || errors.Is(err, errNoRange) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	for _, e := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ETIMEDOUT} {
		if errors.Is(err, e) {
			return true
		}
	}
	var nerr net.Error
	if errors.As(err, &nerr) && nerr.Timeout() {
		return true
	}
	// Go's HTTP/2 errors have no exported type.
	return strings.Contains(err.Error(), "http2: server sent GOAWAY") ||
		strings.Contains(err.Error(), "stream error: stream ID")
}

// attempts counts the tries of one piece of work and paces them.
type attempts struct {
	o    *Options
	done int
}

// again waits before another try and returns nil, or says why there is none.
func (a *attempts) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a.done >= a.o.Retries || !passing(err) {
		return err
	}
	pause := min(a.o.Backoff<<min(a.done, 10), maxPause)
	pause += rand.N(pause/4 + 1) // so that parallel layers do not march in step
	if e := asStatus(err); e != nil {
		pause = max(pause, e.after)
	}
	a.done++
	a.o.Log.Debug("try again", "attempt", a.done, "pause", pause, "cause", err)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retry runs f until it succeeds or trying is pointless. Each attempt has a
// context that ends after the idle timeout.
func (s *Store) retry(ctx context.Context, f func(context.Context) error) error {
	a := attempts{o: &s.o}
	for {
		actx, cancel := context.WithTimeoutCause(ctx, s.o.IdleTimeout, errIdle)
		err := f(actx)
		if err != nil && ctx.Err() == nil && actx.Err() != nil {
			err = fmt.Errorf("%w for %s", errIdle, s.o.IdleTimeout)
		}
		cancel()
		if err == nil {
			return nil
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}
