package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
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
		}, is: ErrUnauthorized, says: "docker login 127.0.0.1", most: 1},
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
	for range 200 { // goroutines end a moment after their connections
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

// recorder is another host that keeps what it is told.
type recorder struct {
	*httptest.Server
	mu      sync.Mutex
	headers []http.Header
}

func newRecorder(t *testing.T, answer http.HandlerFunc) *recorder {
	t.Helper()
	rec := &recorder{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		rec.mu.Lock()
		rec.headers = append(rec.headers, q.Header.Clone())
		rec.mu.Unlock()
		answer(w, q)
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (rec *recorder) secrets() (all []string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, h := range rec.headers {
		for _, k := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
			if v := h.Get(k); v != "" {
				all = append(all, k+": "+v)
			}
		}
	}
	return all
}

type basic struct{ user, password string }

func (b basic) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: b.user, Password: b.password}), nil
}

// TestRedirectKeepsCredentials: blobs may come from another host, the password
// and the token stay.
func TestRedirectKeepsCredentials(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			r := newRegistry(t)
			img := simple(t, 2)
			ref := r.push(t, "a", "b", img)
			cdn := newRecorder(t, func(w http.ResponseWriter, q *http.Request) {
				w.Write(img.blobs[q.URL.Query().Get("digest")])
			})
			want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
			if scheme == "Bearer" {
				want = "Bearer token-1"
			}
			r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if q.URL.Path == "/token" {
					fmt.Fprint(w, `{"token":"token-1"}`)
					return true
				}
				if q.Header.Get("Authorization") != want {
					w.Header().Set("WWW-Authenticate", fmt.Sprintf("%s realm=%q,service=\"s\"", scheme, r.URL+"/token"))
					w.WriteHeader(http.StatusUnauthorized)
					return true
				}
				if d := q.URL.Path[strings.LastIndexByte(q.URL.Path, '/')+1:]; strings.Contains(q.URL.Path, "/blobs/") {
					http.Redirect(w, q, cdn.URL+"/x?digest="+d, http.StatusTemporaryRedirect)
					return true
				}
				return false
			})
			o := fast()
			o.Keychain = basic{"me", "secret"}
			s, _ := newStore(t, o)
			if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Fatal(err)
			}
			if len(cdn.headers) != 3 {
				t.Errorf("%d blobs were read from the other host, want 3", len(cdn.headers))
			}
			if got := cdn.secrets(); len(got) > 0 {
				t.Errorf("the other host got %q", got)
			}
		})
	}
}

// TestTokenExpiry: a token that runs out in the middle is renewed.
func TestTokenExpiry(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "a", "b", simple(t, 6))
	var mu sync.Mutex
	issued, uses := 0, 0
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.URL.Path == "/token" {
			issued++
			uses = 0
			fmt.Fprintf(w, `{"access_token":"t%d","expires_in":1}`, issued)
			return true
		}
		uses++
		if q.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", issued) || uses > 2 {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="repository:a:pull"`, r.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	o := fast()
	o.Parallel = 1 // so that a renewed token is not used up by others
	s, _ := newStore(t, o)
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	if issued < 3 {
		t.Errorf("%d tokens were issued, the test wants several", issued)
	}
}

// TestRealm: whoever answers for a registry names its token server, within
// limits.
func TestRealm(t *testing.T) {
	rec := newRecorder(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"x"}`) })
	_, port, _ := net.SplitHostPort(rec.Listener.Addr().String())
	tlsReg := httptest.NewTLSServer(nil)
	defer tlsReg.Close()
	for name, tc := range map[string]struct{ realm, says string }{
		"plain http":    {"http://auth.example.com/token", "not allowed"},
		"metadata":      {"https://169.254.169.254/token", "link-local"},
		"metadata http": {"http://169.254.169.254/token", "not allowed"},
		"loopback":      {"https://127.0.0.1:" + port + "/token", "private or link-local"},
		"localhost":     {"https://localhost:" + port + "/token", "may not send us"},
		"decimal":       {"https://2130706433:" + port + "/token", "private or link-local"},
		"file":          {"file:///etc/passwd", "not allowed"},
		"no realm":      {"", "realm"},
	} {
		t.Run(name, func(t *testing.T) {
			tlsReg.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s"`, tc.realm))
				w.WriteHeader(http.StatusUnauthorized)
			})
			o := fast()
			o.Keychain = basic{"me", "secret"}
			o.Transport = secureTransport(tlsReg)
			s, _ := newStore(t, o)
			// The registry is not on this machine, as far as its name goes.
			_, err := s.Pull(t.Context(), "example.com/a:b", PullOptions{})
			wantErr(t, err, nil, tc.says)
		})
	}
	if len(rec.headers) != 0 {
		t.Errorf("a forbidden token server got %v", rec.headers)
	}
}

// secureTransport reaches a TLS test server under the name example.com, and
// everything else as a real one would.
func secureTransport(srv *httptest.Server) *http.Transport {
	t := srv.Client().Transport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "example.com:443" {
			return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
		}
		if addr == "169.254.169.254:443" {
			return nil, errors.New("may not send us") // not even from a test
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return t
}

// TestRedirectsThatAreRefused: a registry on TLS sends us neither to plain HTTP
// nor to our own machine.
func TestRedirectsThatAreRefused(t *testing.T) {
	rec := newRecorder(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	_, port, _ := net.SplitHostPort(rec.Listener.Addr().String())
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	for name, tc := range map[string]struct{ to, says string }{
		"plain http":     {"http://127.0.0.1:" + port + "/x", "plain HTTP is refused"},
		"same host http": {"http://example.com/x", "10 redirects"}, // put back to https, again and again,
		"loopback":       {"https://127.0.0.1:" + port + "/x", "may not send us"},
		"localhost":      {"https://localhost:" + port + "/x", "may not send us"},
		"metadata":       {"https://169.254.169.254/x", "may not send us"},
		"unspecified":    {"https://0.0.0.0:" + port + "/x", "may not send us"},
		"loop":           {"https://example.com/v2/a/manifests/b", "10 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path == "/v2/" {
					return
				}
				http.Redirect(w, q, tc.to, http.StatusFound)
			})
			o := fast()
			o.Keychain, o.Transport = basic{"me", "secret"}, secureTransport(srv)
			s, _ := newStore(t, o)
			_, err := s.Pull(t.Context(), "example.com/a:b", PullOptions{})
			wantErr(t, err, nil, tc.says)
		})
	}
	if len(rec.headers) != 0 {
		t.Errorf("a forbidden host got %v", rec.headers)
	}
}

// TestNoPlainHTTP: only loopback registries, and those that the user names, are
// talked to without TLS, private networks included.
func TestNoPlainHTTP(t *testing.T) {
	r := newRegistry(t)
	r.push(t, "a", "b", simple(t, 1))
	o := fast()
	o.Transport = &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, r.host)
	}}
	for _, host := range []string{"10.1.2.3:5000", "192.168.0.1", "registry.example.com"} {
		s, _ := newStore(t, o)
		if _, err := s.Pull(t.Context(), host+"/a:b", PullOptions{Platform: "linux/amd64"}); err == nil {
			t.Errorf("%s was pulled from over plain HTTP", host)
		}
		allowed := o
		allowed.Insecure = func(h string) bool { return h == host }
		s, _ = newStore(t, allowed)
		if _, err := s.Pull(t.Context(), host+"/a:b", PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Errorf("%s, allowed by name: %v", host, err)
		}
	}
}

// TestGuardDials: Go's own way of connecting is guarded before it connects.
func TestGuardDials(t *testing.T) {
	accepted := make(chan struct{}, 9)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g := newGuard(nil, "example.com", false)
	defer g.close()
	for _, host := range []string{"127.0.0.1", "localhost", "127.1", "0", "169.254.169.254"} {
		if c, err := g.dial(t.Context(), "tcp", net.JoinHostPort(host, port)); err == nil {
			c.Close()
			t.Errorf("connected to %s", host)
		} else if !strings.Contains(err.Error(), "may not send us") && !strings.Contains(err.Error(), "no such host") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(accepted) != 0 {
		t.Errorf("%d connections arrived", len(accepted))
	}
	g.allow("localhost:"+port, "") // a proxy that the user set
	c, err := g.dial(t.Context(), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-accepted
}

func TestCheckAddress(t *testing.T) {
	for addr, want := range map[string]bool{
		"93.184.216.34:443": true, "10.0.0.1:443": true, "[2606:2800::1]:443": true, "169.254.169.254:80": false,
		"127.0.0.1:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false, "0.0.0.0:80": false, "[::]:80": false,
		"[fe80::1%lo]:80": false, "[fd00:ec2::254]:80": false, "224.0.0.1:80": false, "nonsense": false,
	} {
		if err := checkAddress(addr, false); (err == nil) != want {
			t.Errorf("checkAddress(%s) = %v", addr, err)
		}
	}
	if checkAddress("127.0.0.1:80", true) != nil || checkAddress("169.254.169.254:80", true) == nil {
		t.Error("a local registry reaches this machine, and no metadata")
	}
}

// TestDockerConfig: credentials come from docker's config.json, for their own
// registry only; a helper that is missing means none.
func TestDockerConfig(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "a", "b", simple(t, 1))
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
	private := true
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		switch got := q.Header.Get("Authorization"); {
		case got == want:
			return false
		case got == "" && !private:
			return false
		case got != "":
			t.Errorf("foreign credentials arrived: %q", got)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	auth := fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte("me:secret")))
	other := fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte("not:yours")))
	bin := t.TempDir()
	helper := "#!/bin/sh\nread host\n[ \"$host\" = " + r.host + " ] || { echo 'credentials not found in native keychain'; exit 1; }\n" +
		`echo '{"ServerURL":"x","Username":"me","Secret":"secret"}'` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-good"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for name, tc := range map[string]struct {
		config  string
		private bool
		says    string
	}{
		"auths":                  {`{"auths":{"` + r.host + `":` + auth + `}}`, true, ""},
		"helper":                 {`{"credHelpers":{"` + r.host + `":"good"}}`, true, ""},
		"store":                  {`{"credsStore":"good"}`, true, ""},
		"none":                   {`{}`, true, "needs `docker login " + r.host},
		"of another":             {`{"auths":{"https://index.docker.io/v1/":` + other + `,"example.com":` + other + `}}`, true, "docker login"},
		"missing helper":         {`{"credsStore":"not-there","auths":{"https://index.docker.io/v1/":` + other + `}}`, true, "docker-credential-not-there"},
		"missing helper, public": {`{"credsStore":"not-there"}`, false, ""},
		"broken config, public":  {`{"auths":`, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("DOCKER_CONFIG", home)
			if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(tc.config), 0o600); err != nil {
				t.Fatal(err)
			}
			private = tc.private
			o := fast()
			o.Keychain = nil
			s, _ := newStore(t, o)
			_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
			if tc.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantErr(t, err, ErrUnauthorized, tc.says)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error tells the password: %v", err)
			}
		})
	}
}

// TestErrorTextIsTame: what a registry says cannot steer a terminal or flood it.
func TestErrorTextIsTame(t *testing.T) {
	r := newRegistry(t)
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/v2/" {
			return false
		}
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, `{"errors":[{"code":"X","message":"\u001b[2J`+strings.Repeat("A", 60_000)+`"}]}`)
		return true
	})
	s, _ := newStore(t, fast())
	_, err := s.Pull(t.Context(), r.host+"/a:b", PullOptions{})
	wantErr(t, err, nil, "418", "AAAA")
	if strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 600 {
		t.Errorf("error is %d bytes: %q", len(err.Error()), err)
	}
}
