package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

// Where containerd's files that say how to reach registries are:
// https://github.com/containerd/containerd/blob/main/docs/hosts.md
const (
	fileHosts   = "hosts.toml"
	dirDefault  = "_default"
	maxHosts    = 1 << 20
	apiPath     = "/v2"
	dockerHosts = "registry-1.docker.io"
)

// endpoint is one place that answers for a registry's name: the registry itself
// or a mirror of it.
type endpoint struct {
	// scheme is "https" or "http"; "" is https, with http after it where that
	// is allowed.
	scheme string
	host   string
	// path of the API, "/v2" but for override_path.
	path                string
	resolve, pull, push bool
	tls                 tlsOptions
	header              http.Header
	dialTimeout         time.Duration
	// mirror: not the registry itself. It is told for which registry it is
	// asked, and gets no credentials but its own.
	mirror bool
}

type tlsOptions struct {
	skipVerify bool
	ca         []string    // files
	client     [][2]string // certificate and key
}

// hostsFile is hosts.toml.
type hostsFile struct {
	Server string                 `toml:"server"`
	Host   map[string]hostOptions `toml:"host"`
	hostOptions
}

type hostOptions struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// endpoints are the places to ask about a registry's images, in order. The last
// one is the registry itself unless the file names another server.
func (s *Store) endpoints(domain, own string) ([]endpoint, error) {
	dir, err := s.hostsDir(domain)
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	if dir == "" {
		return []endpoint{ownEndpoint(own)}, nil
	}
	name := filepath.Join(dir, fileHosts)
	raw, err := readHosts(name)
	if errors.Is(err, fs.ErrNotExist) {
		e := ownEndpoint(own)
		if e.tls, err = certificatesIn(dir); err != nil {
			return nil, fmt.Errorf("registry configuration: %w", err)
		}
		return []endpoint{e}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	all, err := parseHosts(raw, dir, own)
	if err != nil {
		return nil, fmt.Errorf("registry configuration %s: %w", name, err)
	}
	return all, nil
}

// hostsDir is the first of containerd's places for a registry that exists, ""
// when none does. One that cannot be looked at is an error: what it says may be
// that the registry itself must not be asked.
func (s *Store) hostsDir(domain string) (string, error) {
	if s.o.HostsDir == "" {
		return "", nil
	}
	names := []string{domain, dirDefault}
	if i := strings.LastIndexByte(domain, ':'); i > 0 {
		names = append([]string{domain[:i] + "_" + domain[i+1:] + "_"}, names...)
	}
	for _, n := range names {
		dir := filepath.Join(s.o.HostsDir, n)
		st, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && !st.IsDir():
			err = fmt.Errorf("%s is not a directory", dir)
		}
		return dir, err
	}
	return "", nil
}

func ownEndpoint(own string) endpoint {
	return endpoint{host: own, path: apiPath, resolve: true, pull: true, push: true}
}

// readHosts reads a bounded regular file: a FIFO must not block us.
func readHosts(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err == nil && len(raw) > maxHosts {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxHosts)
	}
	return raw, err
}

// certificatesIn are docker's files for a registry, which containerd reads where
// there is no hosts.toml: *.crt are authorities, *.cert and *.key our own.
func certificatesIn(dir string) (tlsOptions, error) {
	var t tlsOptions
	entries, err := os.ReadDir(dir)
	if err != nil {
		return t, err
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch filepath.Ext(file) {
		case ".crt":
			t.ca = append(t.ca, file)
		case ".cert":
			t.client = append(t.client, [2]string{file, strings.TrimSuffix(file, ".cert") + ".key"})
		}
	}
	return t, nil
}

// parseHosts reads a hosts.toml. What it does not know it refuses: a word that
// is spelled wrong would change where images come from.
func parseHosts(raw []byte, dir, own string) ([]endpoint, error) {
	var file hostsFile
	md, err := toml.Decode(string(raw), &file)
	if err != nil {
		return nil, errors.New(printable(err.Error()))
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s is not known", printable(unknown[0].String()))
	}
	var all []endpoint
	for _, server := range hostOrder(md) {
		e, err := file.Host[server].endpoint(server, dir)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", printable(server), err)
		}
		all = append(all, e)
	}
	last, err := file.endpoint(or(file.Server, own), dir)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", printable(file.Server), err)
	}
	if file.Server == "" {
		last.scheme = "" // as without the file
	}
	all = append(all, last)
	for i := range all {
		all[i].mirror = all[i].host != own && (own != "index.docker.io" || all[i].host != dockerHosts)
	}
	return all, nil
}

// hostOrder is the order of the hosts in the file, which counts.
func hostOrder(md toml.MetaData) []string {
	var order []string
	for _, k := range md.Keys() {
		if len(k) >= 2 && k[0] == "host" && !slices.Contains(order, k[1]) {
			order = append(order, k[1])
		}
	}
	return order
}

func (o hostOptions) endpoint(server, dir string) (endpoint, error) {
	e := endpoint{path: apiPath}
	e.tls.skipVerify = o.SkipVerify
	if err := e.setServer(server, o.OverridePath); err != nil {
		return e, err
	}
	var err error
	if err := e.setCapabilities(o.Capabilities); err != nil {
		return e, err
	}
	if e.tls.ca, err = stringList("ca", o.CA); err != nil {
		return e, err
	}
	if e.tls.client, err = clientPairs(o.Client); err != nil {
		return e, err
	}
	e.tls.inDir(dir)
	if e.header, err = headerOf(o.Header); err != nil {
		return e, err
	}
	if o.DialTimeout != "" {
		if e.dialTimeout, err = time.ParseDuration(o.DialTimeout); err != nil || e.dialTimeout <= 0 {
			return e, fmt.Errorf("dial_timeout %q is no time", clip(o.DialTimeout))
		}
	}
	return e, nil
}

// setServer reads a host's address, whose path gets /v2 unless it is overridden.
func (e *endpoint) setServer(server string, override bool) error {
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		if strings.Contains(server, "://") {
			return errors.New("only http and https are supported")
		}
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("not an address like https://host:port/path")
	}
	e.scheme, e.host = u.Scheme, u.Host
	if p := path.Clean("/" + u.Path); p != "/" {
		e.path = p
		if !override && !strings.HasSuffix(p, apiPath) {
			e.path += apiPath
		}
	} else if override && u.Path != "" {
		e.path = ""
	}
	return nil
}

func (e *endpoint) setCapabilities(list []string) error {
	if len(list) == 0 {
		e.resolve, e.pull, e.push = true, true, true
		return nil
	}
	for _, c := range list {
		switch strings.ToLower(c) {
		case "resolve":
			e.resolve = true
		case "pull":
			e.pull = true
		case "push":
			e.push = true
		case "referrers": // nothing here asks for any
		default:
			return fmt.Errorf("capability %q is not known: pull, resolve and push are", clip(c))
		}
	}
	return nil
}

// inDir makes paths absolute: they are relative to the file that names them.
func (t *tlsOptions) inDir(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i := range t.ca {
		abs(&t.ca[i])
	}
	for i := range t.client {
		abs(&t.client[i][0])
		abs(&t.client[i][1])
	}
}

// stringList reads "x" and ["x", "y"].
func stringList(key string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds something that is no text", key)
			}
			all = append(all, s)
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s is neither text nor a list of texts", key)
}

// clientPairs reads "both", ["both", ...] and [["cert", "key"], ...].
func clientPairs(v any) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		names, err := stringList("client", v)
		var pairs [][2]string
		for _, n := range names {
			pairs = append(pairs, [2]string{n, ""})
		}
		return pairs, err
	}
	var pairs [][2]string
	for _, x := range list {
		names, err := stringList("client", x)
		if err != nil || len(names) == 0 || len(names) > 2 {
			return nil, errors.New("client is not a list of pairs of a certificate and a key")
		}
		pairs = append(pairs, [2]string{names[0], strings.Join(names[1:], "")})
	}
	return pairs, nil
}

func headerOf(m map[string]any) (http.Header, error) {
	h := http.Header{}
	for key, v := range m {
		values, err := stringList("header "+printable(key), v)
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			h.Add(key, value)
		}
	}
	return h, nil
}
