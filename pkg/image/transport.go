package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxRedirects = 10

// errPlainHTTP says that a registry, its token server or a redirect wanted to
// leave TLS.
var errPlainHTTP = errors.New("plain HTTP is refused")

// errAddress says that a registry sent us to an address that is not for it.
var errAddress = errors.New("a registry may not send us to this address")

// isLoopback reports whether a registry's host, with its port or without, is
// this machine. Docker talks plain HTTP to these, and only to these.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && ip.Unmap().IsLoopback()
}

func trimBrackets(s string) string {
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		return s[1 : len(s)-1]
	}
	return s
}

// guard keeps a registry from steering requests where they must not go: to
// plain HTTP, and to addresses that only this machine can reach. Whoever
// answers for a registry chooses its token server and its redirects.
type guard struct {
	base *http.Transport
	// own is for requests to the registry's own host, which may be configured
	// with certificates that are nobody else's business; nil is base.
	own  *http.Transport
	host string
	// inner makes connections; nil is Go's own way.
	inner func(ctx context.Context, network, addr string) (net.Conn, error)
	// insecure allows plain HTTP, and loopback addresses for a registry that
	// is on this machine itself.
	insecure, local bool
	allowed         sync.Map // "host:port" of the registry and of proxies
	// untrusted is why the host's certificate was refused: plain HTTP is no way
	// around that.
	untrusted atomic.Pointer[tls.CertificateVerificationError]
}

// newGuard makes the transport for one registry. The caller closes it.
func newGuard(base *http.Transport, host string, insecure bool) *guard {
	if base == nil {
		base, _ = http.DefaultTransport.(*http.Transport)
	}
	g := &guard{base: base.Clone(), host: host, insecure: insecure, local: isLoopback(host)}
	g.base.DisableCompression = true // bytes are hashed as they were stored
	g.base.MaxResponseHeaderBytes = 256 << 10
	g.base.TLSHandshakeTimeout = 15 * time.Second
	g.allow(host, "443")
	g.allow(host, "80")
	if proxy := g.base.Proxy; proxy != nil {
		g.base.Proxy = func(r *http.Request) (*url.URL, error) {
			u, err := proxy(r)
			if u != nil {
				g.allow(u.Host, map[string]string{"https": "443", "socks5": "1080"}[u.Scheme])
				g.allow(u.Host, "80")
			}
			return u, err
		}
	}
	if base != http.DefaultTransport {
		g.inner = g.base.DialContext
	}
	g.base.DialContext = g.dial
	return g
}

// newEndpointGuard is newGuard with what is configured for the host.
func newEndpointGuard(base *http.Transport, e *endpoint, insecure bool) (*guard, error) {
	g := newGuard(base, e.host, insecure)
	config, err := e.tls.config(g.base.TLSClientConfig)
	if err != nil {
		return nil, err
	}
	if config == g.base.TLSClientConfig && e.dialTimeout == 0 {
		return g, nil
	}
	g.own = g.base.Clone()
	g.own.TLSClientConfig = config
	if e.dialTimeout > 0 {
		g.own.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, e.dialTimeout)
			defer cancel()
			return g.dial(ctx, network, addr)
		}
	}
	return g, nil
}

func (g *guard) allow(host, port string) {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(trimBrackets(host), port)
	}
	g.allowed.Store(host, true)
}

// RoundTrip sees every request, those for tokens and after redirects too.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !(g.insecure && r.URL.Scheme == "http") {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, errPlainHTTP)
	}
	if r.URL.Host == g.host && r.URL.Scheme == "http" {
		if err := g.untrusted.Load(); err != nil {
			return nil, err
		}
	}
	resp, err := g.send(r)
	var untrusted *tls.CertificateVerificationError
	if r.URL.Host == g.host && errors.As(err, &untrusted) {
		g.untrusted.Store(untrusted)
	}
	return resp, err
}

func (g *guard) send(r *http.Request) (*http.Response, error) {
	via := g.base
	if g.own != nil && r.URL.Host == g.host {
		via = g.own
	}
	if r.GetBody == nil {
		return via.RoundTrip(r)
	}
	// The auth transport sends a request again with a new token; its body has
	// been read by then.
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	fresh := *r
	fresh.Body = body
	return via.RoundTrip(&fresh)
}

func (g *guard) close() {
	g.base.CloseIdleConnections()
	if g.own != nil {
		g.own.CloseIdleConnections()
	}
}

// dial refuses by resolved address, so that no name can hide one.
func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, trusted := g.allowed.Load(addr)
	if g.inner == nil {
		d := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
		if !trusted {
			d.Control = func(_, resolved string, _ syscall.RawConn) error {
				return checkAddress(resolved, g.local)
			}
		}
		return d.DialContext(ctx, network, addr)
	}
	c, err := g.inner(ctx, network, addr)
	if err != nil || trusted {
		return c, err
	}
	if err := checkAddress(c.RemoteAddr().String(), g.local); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// checkAddress refuses what is no public or site address: cloud metadata
// (169.254.169.254) and the services of this machine.
func checkAddress(resolved string, local bool) error {
	ap, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", resolved, err)
	}
	ip := ap.Addr().Unmap()
	metadata := ip == netip.MustParseAddr("fd00:ec2::254")
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || metadata || ip.IsLoopback() && !local {
		return fmt.Errorf("connect to %s: %w", resolved, errAddress)
	}
	return nil
}

// checkRedirect bounds redirects. Credentials cannot follow them: the auth
// transport adds them for the registry's own host only, and the guard refuses
// the way back to plain HTTP.
func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}
