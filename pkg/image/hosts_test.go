package image

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// configure writes hosts.toml for a registry, with % as its directory.
func configure(t testing.TB, s *Store, registry, text string) string {
	t.Helper()
	if s.o.HostsDir == "" {
		s.o.HostsDir = t.TempDir()
	}
	dir := filepath.Join(s.o.HostsDir, registry)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileHosts), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestParseHosts(t *testing.T) {
	full := endpoint{scheme: "https", host: "own.example", path: "/v2", resolve: true, pull: true, push: true, header: http.Header{}}
	with := func(f func(*endpoint)) endpoint { e := full; f(&e); return e }
	own := with(func(e *endpoint) { e.scheme = "" })
	tests := map[string]struct {
		text string
		want []endpoint
	}{
		"empty":  {"", []endpoint{own}},
		"server": {`server = "https://own.example"`, []endpoint{full}},
		"other server": {`server = "http://m:5000/x"`, []endpoint{with(func(e *endpoint) {
			e.scheme, e.host, e.path, e.mirror = "http", "m:5000", "/x/v2", true
		})}},
		"order": {"[host.z]\n[host.\"http://a\"]\ncapabilities = [\"pull\", \"Resolve\"]\n[host.m.header]\n", []endpoint{
			with(func(e *endpoint) { e.host, e.mirror = "z", true }),
			with(func(e *endpoint) { e.scheme, e.host, e.push, e.mirror = "http", "a", false, true }),
			with(func(e *endpoint) { e.host, e.mirror = "m", true }), own,
		}},
		"paths": {"[host.\"https://a/v2\"]\n[host.\"https://b/p/v2/q\"]\noverride_path = true\n[host.\"https://c/p/\"]\n", []endpoint{
			with(func(e *endpoint) { e.host, e.mirror = "a", true }),
			with(func(e *endpoint) { e.host, e.path, e.mirror = "b", "/p/v2/q", true }),
			with(func(e *endpoint) { e.host, e.path, e.mirror = "c", "/p/v2", true }), own,
		}},
		"details": {`server = "own.example"
ca = ["ca.pem", "/abs/ca.pem"]
client = [["c.pem", "k.pem"], ["both.pem"]]
skip_verify = true
dial_timeout = "3s"
[header]
X-Many = ["a", "b"]
x-one = "c"
`, []endpoint{with(func(e *endpoint) {
			e.tls = tlsOptions{skipVerify: true, ca: []string{"/d/ca.pem", "/abs/ca.pem"},
				client: [][2]string{{"/d/c.pem", "/d/k.pem"}, {"/d/both.pem", ""}}}
			e.header = http.Header{"X-Many": {"a", "b"}, "X-One": {"c"}}
			e.dialTimeout = 3 * time.Second
		})}},
		"one of each": {`ca = "ca.pem"
client = "both.pem"`, []endpoint{with(func(e *endpoint) {
			e.scheme = ""
			e.tls = tlsOptions{ca: []string{"/d/ca.pem"}, client: [][2]string{{"/d/both.pem", ""}}}
		})}},
	}
	for name, tt := range tests {
		got, err := parseHosts([]byte(tt.text), "/d", "own.example")
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	for text, says := range map[string]string{
		"server = ": "line 1", "[host": "line 1", "skip_verfiy = true": "skip_verfiy is not known",
		"[host.a]\ncapabilites = [\"pull\"]":    "is not known",
		"[host.a]\ncapabilities = [\"delete\"]": `"delete" is not known`,
		"server = \"ftp://x\"":                  "only http and https",
		"[host.\"unix:///run/x\"]":              "only http and https",
		"server = \"https://me:pw@x\"":          "not an address",
		"server = \"https://\"":                 "not an address",
		"server = \"https://x?y\"":              "not an address",
		"ca = 3":                                "ca is neither",
		"ca = [3]":                              "ca holds",
		"client = [[\"a\", \"b\", \"c\"]]":      "client is not",
		"[host.\"\"]":                           "not an address",
		"dial_timeout = \"soon\"":               "dial_timeout",
		"dial_timeout = \"-1s\"":                "dial_timeout",
		"[header]\nx = 3":                       "header x",
		"server = \"\x1b[2J\"":                  "",
		"skip_verify = \"yes\"":                 "",
		"[host.a]\n[host.a]":                    "",
		"a\xff = 1":                             "",
		"[host]\na = 1":                         "",
		strings.Repeat("[", 100_000):            "",
	} {
		_, err := parseHosts([]byte(text), "/d", "own.example")
		if err == nil || !strings.Contains(err.Error(), says) || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 500 {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add("server = \"https://x\"\n[host.\"http://y/z\"]\ncapabilities = [\"pull\"]\nca=[\"a\"]\nclient=[[\"a\",\"b\"]]\n[host.\"http://y/z\".header]\na=[\"b\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseHosts([]byte(text), "/d", "own.example")
		if err == nil && len(all) == 0 {
			t.Error("no endpoint")
		}
		for _, e := range all {
			if e.host == "" || e.scheme != "" && e.scheme != "http" && e.scheme != "https" {
				t.Errorf("endpoint %+v", e)
			}
		}
	})
}

func TestHostsDir(t *testing.T) {
	s, _ := newStore(t, fast())
	if all, err := s.endpoints("a.example", "a.example"); err != nil || len(all) != 1 || all[0].mirror {
		t.Errorf("without a directory: %+v, %v", all, err)
	}
	for _, tt := range []struct{ dir, registry, want string }{
		{"a.example", "a.example", "a.example"}, {"b.example:5000", "b.example:5000", "b.example:5000"},
		{"c.example_5000_", "c.example:5000", "c.example_5000_"}, {"_default", "else.example", "_default"},
	} {
		configure(t, s, tt.dir, "server = \"https://found.example\"")
		if got, err := s.hostsDir(tt.registry); err != nil || filepath.Base(got) != tt.want {
			t.Errorf("%s: %s, %v", tt.registry, got, err)
		}
	}
	// What is broken is an error that names the file, never no configuration.
	broken := configure(t, s, "broken.example", "server")
	_, err := s.Pull(t.Context(), "broken.example/a:b", PullOptions{})
	wantErr(t, err, nil, "registry configuration "+filepath.Join(broken, fileHosts), "line 1")
	if err := os.WriteFile(filepath.Join(s.o.HostsDir, "file.example"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.endpoints("file.example", "file.example")
	wantErr(t, err, nil, "file.example is not a directory")
	_, err = s.endpoints(strings.Repeat("a", 300), "a") // a name that stat refuses
	wantErr(t, err, syscall.ENAMETOOLONG)
	for name, spoil := range map[string]func(string) error{
		"fifo":      func(f string) error { return syscall.Mkfifo(f, 0o600) },
		"directory": func(f string) error { return os.Mkdir(f, 0o700) },
		"huge":      func(f string) error { return os.WriteFile(f, bytes.Repeat([]byte("#"), maxHosts+1), 0o600) },
	} {
		file := filepath.Join(broken, fileHosts)
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := spoil(file); err != nil {
			t.Fatal(err)
		}
		if _, err := s.endpoints("broken.example", "broken.example"); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMirror: docker.io is served by a mirror, by tag and by digest, with no
// word to Docker Hub; the mirror hears for whom it answers.
func TestMirror(t *testing.T) {
	img := simple(t, 2)
	mirror := newRegistry(t)
	mirror.push(t, "library/app", "v1", img)
	s, _ := newStore(t, fast())
	configure(t, s, "docker.io", fmt.Sprintf("server = %q", mirror.URL))
	asked := 0
	mirror.intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.HasPrefix(q.URL.Path, "/v2/library/") {
			asked++
			if q.URL.Query().Get("ns") != "docker.io" {
				t.Errorf("%s: for whom?", q.URL)
			}
		}
		return false
	})
	s.o.Parallel = 1
	got, err := s.Pull(t.Context(), "app:v1", PullOptions{Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Names[0] != "app:v1" || got.Digests[0] != "app@"+digestOf(img.manifest) || asked < 4 {
		t.Errorf("%v, %v, asked %d times", got.Names, got.Digests, asked)
	}
	if _, err := s.Pull(t.Context(), "app@"+digestOf(img.manifest), PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Error(err)
	}
}

// TestMirrorFallback: the hosts are asked in order, each for what it may do, and
// what one has not the next may have.
func TestMirrorFallback(t *testing.T) {
	img := simple(t, 3)
	layer := img.m.Layers[1].Digest.String()
	tests := map[string]struct {
		capabilities string
		fault        func(w http.ResponseWriter, q *http.Request) bool
		originBlobs  int // how many blobs must come from the origin
	}{
		"all there":   {originBlobs: 0},
		"pull only":   {capabilities: `capabilities = ["pull"]`, originBlobs: 0},
		"push only":   {capabilities: `capabilities = ["push"]`, originBlobs: 4},
		"server down": {originBlobs: 4, fault: func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }},
		"wants a login": {originBlobs: 4, fault: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="m"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}},
		"a layer is missing": {originBlobs: 1, fault: func(w http.ResponseWriter, q *http.Request) bool {
			missing := strings.Contains(q.URL.Path, layer)
			if missing {
				w.WriteHeader(http.StatusNotFound)
			}
			return missing
		}},
		// This registry refuses an open range: it is asked for the whole then.
		"a layer breaks off": {originBlobs: 2, fault: func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, layer) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(img.blobs[layer])))
			w.Write(img.blobs[layer][:20])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}},
		"a forged manifest": {originBlobs: 4, fault: func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "/blobs/") {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			if strings.Contains(q.URL.Path, "/manifests/sha256:") {
				fmt.Fprint(w, `{"schemaVersion":2}`)
				return true
			}
			return false
		}},
	}
	for name, tt := range tests {
		for _, pinned := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/pinned=%t", name, pinned), func(t *testing.T) {
				origin, mirror := newRegistry(t), newRegistry(t)
				ref := origin.push(t, "a", "b", img)
				mirror.push(t, "a", "b", img)
				if pinned {
					ref = origin.host + "/a@" + digestOf(img.manifest)
				}
				o := fast()
				o.Retries = 2
				s, _ := newStore(t, o)
				configure(t, s, origin.host, fmt.Sprintf("[host.%q]\n%s\n", mirror.URL, tt.capabilities))
				mirror.intercept(tt.fault)
				ranges := 0
				origin.intercept(func(_ http.ResponseWriter, q *http.Request) bool {
					if q.Header.Get("Range") == "bytes=20-" {
						ranges++
					}
					return false
				})
				got, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
				if err != nil {
					t.Fatal(err)
				}
				if got.ID != digestOf(img.config) {
					t.Errorf("pulled %s", got.ID)
				}
				if n := origin.count("GET", "/blobs/"); n != tt.originBlobs {
					t.Errorf("%d blobs came from the registry itself, want %d", n, tt.originBlobs)
				}
				if n := mirror.count("GET", "/manifests/b"); tt.capabilities != "" && n != 0 {
					t.Errorf("a host that may not resolve was asked for a tag %d times", n)
				}
				if name == "a layer breaks off" && ranges != 1 {
					t.Error("the registry itself did not go on where the mirror stopped")
				}
			})
		}
	}
}

// TestMirrorAllFail: the error names every host that was asked.
func TestMirrorAllFail(t *testing.T) {
	origin, mirror := newRegistry(t), newRegistry(t)
	s, layers := newStore(t, fast())
	configure(t, s, origin.host, fmt.Sprintf("[host.%q]\n", mirror.URL))
	_, err := s.Pull(t.Context(), origin.host+"/a:b", PullOptions{})
	wantErr(t, err, ErrNotFound, origin.host+": ", mirror.host+": ", "404")
	checkEmpty(t, s, layers)
	configure(t, s, origin.host, "capabilities = [\"push\"]\n")
	_, err = s.Pull(t.Context(), origin.host+"/a:b", PullOptions{})
	wantErr(t, err, nil, "no host is configured")
}

// TestMirrorCredentials: a mirror gets its own credentials and its own headers,
// never those of the registry, and nobody else gets either.
func TestMirrorCredentials(t *testing.T) {
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	img := simple(t, 2)
	origin, mirror := newRegistry(t), newRegistry(t)
	origin.push(t, "a", "b", img)
	mirror.push(t, "a", "b", img)
	auth := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q},%q:{"auth":%q}}}`, origin.host, auth("origin:secret1"), mirror.host, auth("mirror:secret2"))
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cdn := newRecorder(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Secret") != "" {
			t.Error("another host got the mirror's header")
		}
		w.Write(img.blobs[q.URL.Query().Get("digest")])
	})
	wants := func(user string, header bool) func(w http.ResponseWriter, q *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			got := q.Header.Get("Authorization")
			if got != "" && got != "Basic "+auth(user) {
				t.Errorf("%s got %s", user, got)
			}
			if (q.Header.Get("X-Secret") == "s3") != header {
				t.Errorf("%s: header %q", user, q.Header.Get("X-Secret"))
			}
			if got == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if d := filepath.Base(q.URL.Path); strings.Contains(q.URL.Path, "/blobs/") && header {
				http.Redirect(w, q, cdn.URL+"/?digest="+d, http.StatusFound)
				return true
			}
			return false
		}
	}
	mirror.intercept(wants("mirror:secret2", true))
	origin.intercept(wants("origin:secret1", false))
	o := fast()
	o.Keychain = nil
	for _, capabilities := range []string{"", `capabilities = ["pull"]`} {
		s, _ := newStore(t, o)
		configure(t, s, origin.host, fmt.Sprintf("[host.%q]\n%s\n[host.%q.header]\nX-Secret = \"s3\"\n", mirror.URL, capabilities, mirror.URL))
		if _, err := s.Pull(t.Context(), origin.host+"/a:b", PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := cdn.secrets(); len(got) > 0 || len(cdn.headers) == 0 {
		t.Errorf("the other host got %q in %d requests", got, len(cdn.headers))
	}
	// A login goes to the registry, whatever stands in for it.
	s, _ := newStore(t, o)
	configure(t, s, origin.host, fmt.Sprintf("server = %q\n", mirror.URL))
	mirror.intercept(nil)
	if _, err := s.Login(t.Context(), origin.host, "origin", "secret1"); err != nil {
		t.Error(err)
	}
	if mirror.count("", "") != 0 {
		t.Error("a mirror was asked at a login")
	}
}

// TestMirrorPath: the path of a mirror, in requests, in uploads and in addresses
// that it gives itself.
func TestMirrorPath(t *testing.T) {
	img := simple(t, 2)
	for options, prefix := range map[string]string{"": "/proxy/v2", "override_path = true": "/proxy"} {
		inner := newRegistry(t)
		inner.push(t, "proxy/app", "v1", img)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			rest, ok := strings.CutPrefix(q.URL.Path, prefix)
			if !ok {
				t.Errorf("%q: request for %s", options, q.URL)
			}
			q.URL.Path = "/v2" + rest
			inner.Config.Handler.ServeHTTP(locationFixer{w, prefix}, q)
		}))
		defer front.Close()
		s, _ := newStore(t, fast())
		configure(t, s, "r.example", fmt.Sprintf("[host.%q]\n%s\n", front.URL+"/proxy", options))
		got, err := s.Pull(t.Context(), "r.example/proxy/app:v1", PullOptions{Platform: "linux/amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Tag(got.ID, "r.example/proxy/other:v2"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Push(t.Context(), "r.example/proxy/other:v2", PushOptions{}); err != nil {
			t.Errorf("%q: %v", options, err)
		}
		if inner.count("PUT", "/v2/proxy/other/manifests/v2") != 1 {
			t.Errorf("%q: %q", options, inner.log)
		}
	}
}

// locationFixer is what a proxy under a path does to addresses.
type locationFixer struct {
	http.ResponseWriter
	prefix string
}

func (l locationFixer) WriteHeader(status int) {
	if at := l.Header().Get("Location"); strings.HasPrefix(at, "/v2/") {
		l.Header().Set("Location", l.prefix+strings.TrimPrefix(at, "/v2"))
	}
	l.ResponseWriter.WriteHeader(status)
}

// TestPushHost: a push goes to the first host that takes pushes.
func TestPushHost(t *testing.T) {
	img := simple(t, 1)
	first, second := newRegistry(t), newRegistry(t)
	s, _ := storeWith(t, map[string]*testImage{"r.example/a:b": img})
	configure(t, s, "r.example", fmt.Sprintf("[host.%q]\ncapabilities = [\"pull\"]\n[host.%q]\n", first.URL, second.URL))
	if _, err := s.Push(t.Context(), "r.example/a:b", PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if first.count("", "") != 0 || second.count("PUT", "/v2/a/manifests/b") != 1 {
		t.Errorf("first %q, second %q", first.log, second.log)
	}
	configure(t, s, "r.example", fmt.Sprintf("server = %q\ncapabilities = [\"pull\"]\n", first.URL))
	_, err := s.Push(t.Context(), "r.example/a:b", PushOptions{})
	wantErr(t, err, nil, "no host is configured that takes pushes")
}

// keyPair makes a certificate of our own in two files.
func keyPair(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"c.cert": {Type: "CERTIFICATE", Bytes: der}, "c.key": {Type: "PRIVATE KEY", Bytes: rawKey}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestHostTLS: authorities, client certificates and skip_verify work, and count
// for the host that they are configured for only.
func TestHostTLS(t *testing.T) {
	img := simple(t, 2)
	inner := newRegistry(t)
	inner.push(t, "a", "b", img)
	var certs []int
	cdn := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		t.Error("a host with an unknown certificate was trusted")
	}))
	cdn.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	cdn.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the test
	cdn.StartTLS()
	defer cdn.Close()
	redirect := false
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		certs = append(certs, len(q.TLS.PeerCertificates))
		if redirect && strings.Contains(q.URL.Path, "/blobs/") {
			http.Redirect(w, q, cdn.URL+"/", http.StatusFound)
			return
		}
		inner.Config.Handler.ServeHTTP(w, q)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = cdn.Config.ErrorLog
	srv.StartTLS()
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	pull := func(text string, prepare func(dir string)) error {
		o := fast()
		o.Retries = -1
		s, _ := newStore(t, o)
		s.o.Parallel = 1
		dir := configure(t, s, "r.example", text)
		if prepare != nil {
			prepare(dir)
		}
		certs = nil
		_, err := s.Pull(t.Context(), "r.example/a:b", PullOptions{Platform: "linux/amd64"})
		return err
	}
	write := func(dir string) {
		keyPair(t, dir)
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := fmt.Sprintf("server = %q\n", srv.URL)
	if err := pull(server, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	if err := pull(server+"skip_verify = true\n", nil); err != nil {
		t.Errorf("skip_verify: %v", err)
	}
	if err := pull(server+"ca = \"ca.pem\"\n", write); err != nil || slices.Contains(certs, 1) {
		t.Errorf("ca: %v, client certificates %v", err, certs)
	}
	if err := pull(server+"ca = \"ca.pem\"\nclient = [[\"c.cert\", \"c.key\"]]\n", write); err != nil || slices.Contains(certs, 0) {
		t.Errorf("client: %v, client certificates %v", err, certs)
	}
	for text, says := range map[string]string{"ca = \"none.pem\"": "read authority", "ca = \"c.key\"": "no certificate in", "client = \"ca.pem\"": "read certificate"} {
		if err := pull(server+text, write); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	redirect = true
	if err := pull(server+"skip_verify = true\n", nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("skip_verify of another host: %v", err)
	}
	if err := pull(server+"skip_verify = false\n[host.\"http://"+srv.Listener.Addr().String()+"\"]\n", nil); err == nil {
		t.Error("plain HTTP to a TLS server worked")
	}
}

// TestDockerCertificates: docker's files count where there is no hosts.toml.
func TestDockerCertificates(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"a.crt", "c.cert", "c.key", "readme"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := certificatesIn(dir)
	want := tlsOptions{ca: []string{dir + "/a.crt"}, client: [][2]string{{dir + "/c.cert", dir + "/c.key"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}
