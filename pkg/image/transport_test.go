package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
