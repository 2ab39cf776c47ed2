package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// bigLayer does not compress, so that its transfer has many steps.
func bigLayer(t testing.TB, n int) testLayer {
	t.Helper()
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	plain := layerTar(t, "big", b)
	return testLayer{plain, gz(t, plain), ""}
}

// serve answers a blob request, from the offset that its Range asks for.
func serve(w http.ResponseWriter, q *http.Request, blob []byte, ranges bool) (rest []byte) {
	from := 0
	if h, ok := strings.CutPrefix(q.Header.Get("Range"), "bytes="); ok && ranges {
		from, _ = strconv.Atoi(strings.TrimSuffix(h, "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
	}
	return blob[from:]
}

// reset breaks the connection without a word.
func reset(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// TestBrokenDownloads: whatever a network does to one layer, the pull comes to
// the right bytes, or to an error with nothing kept.
func TestBrokenDownloads(t *testing.T) {
	layer := bigLayer(t, 1<<20)
	piece := len(layer.stored)/3 + 1
	half := len(layer.stored) / 2
	for name, tc := range map[string]struct {
		// fault answers the nth request for the layer; false: no fault.
		fault func(n int, w http.ResponseWriter, q *http.Request) bool
		is    error // nil: the pull succeeds
		says  string
		most  int // requests
	}{
		"reset, resumed": {fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			rest := serve(w, q, layer.stored, true)
			w.Write(rest[:min(piece, len(rest))])
			w.(http.Flusher).Flush()
			return true // a body shorter than announced ends the connection
		}, most: 3},
		"reset, no ranges": {fault: func(n int, w http.ResponseWriter, q *http.Request) bool {
			rest := serve(w, q, layer.stored, false)
			if n <= 2 {
				w.Write(rest[:n*piece])
				w.(http.Flusher).Flush()
				reset(w)
				return true
			}
			w.Write(rest)
			return true
		}, most: 3},
		"short body, no length": {fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 1 {
				return false
			}
			w.(http.Flusher).Flush() // chunked from here
			w.Write(layer.stored[:half])
			return true
		}, most: 3}, // the registry behind knows no open range, so: once more from the start
		"too long, no length": {fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.(http.Flusher).Flush()
			w.Write(layer.stored)
			w.Write([]byte("more")) // never read: the manifest has the length
			return true
		}, most: 1},
		"429 then fine": {fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}, most: 3},
		"500 for ever": {fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}, is: errAny, says: "registry answered 500 Internal Server Error", most: 4},
		"reset for ever": {fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			reset(w)
			return true
		}, is: errAny, most: 8}, // Go itself repeats a request on a reused connection
		"same bytes twice": {fault: func(n int, w http.ResponseWriter, q *http.Request) bool {
			if n > 1 {
				q.Header.Set("Range", "bytes=0-") // says 0, whatever was asked
			}
			rest := serve(w, q, layer.stored, true)
			w.Write(rest[:piece])
			w.(http.Flusher).Flush()
			reset(w)
			return true
		}, is: ErrInvalid, says: "asked for bytes from", most: 3},
		"wrong bytes": {fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			bad := bytes.Clone(layer.stored)
			bad[len(bad)-5] ^= 1 // in gzip's own checksum
			w.Write(serve(w, q, bad, true))
			return true
		}, is: ErrInvalid, most: 1},
		"other gzip of the same tar": {fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			bad := bytes.Clone(layer.stored)
			bad[9] ^= 1 // the OS byte of the header: the diffID stays right
			w.Write(serve(w, q, bad, true))
			return true
		}, is: ErrInvalid, says: "wrong content: digest is sha256:", most: 1},
		"wrong length": {fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.Write(serve(w, q, layer.stored[1:], true))
			return true
		}, is: ErrInvalid, says: "the manifest says", most: 1},
		"404": {fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, is: ErrNotFound, says: "404", most: 1},
		"403": {fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, is: ErrUnauthorized, says: "micropod login 127.0.0.1", most: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			ref := r.push(t, "a", "b", makeImage(t, imageSpec{layers: []testLayer{layer}}))
			var n atomic.Int32
			r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, "/blobs/"+digestOf(layer.stored)) {
					return false
				}
				return tc.fault(int(n.Add(1)), w, q)
			})
			o := fast()
			o.Retries = 3
			s, layers := newStore(t, o)
			_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
			if int(n.Load()) > tc.most {
				t.Errorf("%d requests, at most %d are due", n.Load(), tc.most)
			}
			if tc.is == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if tc.is == errAny {
				tc.is = nil
			}
			wantErr(t, err, tc.is, tc.says)
			checkEmpty(t, s, layers)
		})
	}
}

var errAny = errors.New("any error")

// TestManifestFaults: the first requests of a pull get the same patience.
func TestManifestFaults(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "a", "b", simple(t, 1))
	s, _ := newStore(t, fast())
	for _, part := range []string{"/v2/", "/manifests/"} {
		var n atomic.Int32
		r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasSuffix(q.URL.Path, part) && !strings.Contains(q.URL.Path, "/manifests") {
				return false
			}
			switch n.Add(1) {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				reset(w)
			default:
				return false
			}
			return true
		})
		if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Errorf("%s: %v", part, err)
		}
	}
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/manifests") {
			w.Write(bytes.Repeat([]byte(" "), maxDocument+1))
			return true
		}
		return false
	})
	_, err := s.Pull(t.Context(), ref, PullOptions{})
	wantErr(t, err, ErrInvalid, "larger than 4194304 bytes")
	r.intercept(nil)
	_, err = s.Pull(t.Context(), r.host+"/a:nope", PullOptions{})
	wantErr(t, err, ErrNotFound, "404")
}

// TestSilentRegistry: neither silence nor drips hold a pull for ever.
func TestSilentRegistry(t *testing.T) {
	r := newRegistry(t)
	layer := bigLayer(t, 1<<20)
	ref := r.push(t, "a", "b", makeImage(t, imageSpec{layers: []testLayer{layer}}))
	stop := make(chan struct{})
	defer close(stop)
	hang := func(w http.ResponseWriter, drip bool) {
		w.Header().Set("Content-Length", strconv.Itoa(len(layer.stored)))
		for i := 0; ; i++ {
			if drip {
				w.Write(layer.stored[i : i+1])
				w.(http.Flusher).Flush()
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	for name, drip := range map[string]bool{"silence": false, "slow loris": true} {
		for _, part := range []string{"/blobs/" + digestOf(layer.stored), "/manifests/b"} {
			t.Run(name+" "+part[:6], func(t *testing.T) {
				r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
					if strings.HasSuffix(q.URL.Path, part) {
						hang(w, drip)
						return true
					}
					return false
				})
				o := fast()
				o.IdleTimeout, o.Retries = 100*time.Millisecond, 1
				s, layers := newStore(t, o)
				_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
				wantErr(t, err, errIdle)
				checkEmpty(t, s, layers)
			})
		}
	}
	t.Run("time limit", func(t *testing.T) {
		o := fast()
		o.Timeout = 50 * time.Millisecond
		s, layers := newStore(t, o)
		_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
		wantErr(t, err, errTimeout)
		checkEmpty(t, s, layers)
	})
}

// TestCancel: a cancelled pull ends, keeps nothing and leaks no goroutine.
func TestCancel(t *testing.T) {
	r := newRegistry(t)
	var layers []testLayer
	for i := range 6 {
		layers = append(layers, bigLayer(t, 300_000+i))
	}
	ref := r.push(t, "a", "b", makeImage(t, imageSpec{layers: layers}))
	before := runtime.NumGoroutine()
	for _, at := range []string{"/v2/", "/manifests/", "/blobs/"} {
		ctx, cancel := context.WithCancel(t.Context())
		r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, at) {
				return false
			}
			cancel()
			<-q.Context().Done() // the client has gone
			return true
		})
		s, kept := newStore(t, fast())
		_, err := s.Pull(ctx, ref, PullOptions{Platform: "linux/amd64"})
		wantErr(t, err, context.Canceled)
		checkEmpty(t, s, kept)
	}
	r.CloseClientConnections()
	http.DefaultClient.CloseIdleConnections()
	for range 6000 { // goroutines end a moment after their connections
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
