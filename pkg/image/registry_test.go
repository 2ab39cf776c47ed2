package image

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

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
		"none":                   {`{}`, true, "needs `micropod login " + r.host},
		"of another":             {`{"auths":{"https://index.docker.io/v1/":` + other + `,"example.com":` + other + `}}`, true, "micropod login"},
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

// TestUnreachable: no registry at all is told in one line.
func TestUnreachable(t *testing.T) {
	const host = "127.0.0.1:1" // tcpmux's, and no number that another program may get
	s, layers := newStore(t, fast())
	_, err := s.Pull(t.Context(), host+"/a:b", PullOptions{})
	wantErr(t, err, syscall.ECONNREFUSED, "cannot reach the registry "+host, "check the network")
	checkEmpty(t, s, layers)
}
