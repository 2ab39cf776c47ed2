package image

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

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
