package image

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLoginServer(t *testing.T) {
	for in, want := range map[string]string{
		"": dockerHub, "docker.io": dockerHub, "https://index.docker.io/v1/": dockerHub,
		"example.com": "example.com", "https://example.com:5000/v2/": "example.com:5000", "http://[::1]:5000": "[::1]:5000",
	} {
		if got := LoginServer(in); got != want {
			t.Errorf("LoginServer(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestLoginKeepsPassword: a password goes to the registry over TLS and to a token
// server over TLS, and nowhere else, redirects included.
func TestLoginKeepsPassword(t *testing.T) {
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	rec := newRecorder(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"x"}`) })
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	challenge := func(realm string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s"`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"realm on plain http": challenge(rec.URL + "/token"),
		"realm of metadata":   challenge("https://169.254.169.254/token"),
		"redirect to plain http": func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, rec.URL+"/v2/", http.StatusTemporaryRedirect)
		},
	} {
		srv.Config.Handler = answer
		o := fast()
		o.Transport = secureTransport(srv)
		s, _ := newStore(t, o)
		if _, err := s.Login(t.Context(), "example.com", "me", "secret"); err == nil {
			t.Errorf("%s: logged in", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
	if got := rec.secrets(); len(got) > 0 {
		t.Errorf("another host got %q", got)
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		t.Errorf("stored after a failure: %v %v", entries, err)
	}
}

// TestLoginBearer: the token server says whether the password is right.
func TestLoginBearer(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", filepath.Join(t.TempDir(), "not", "there", "yet"))
	r := newRegistry(t)
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		user, password, _ := q.BasicAuth()
		switch {
		case q.URL.Path == "/token" && user == "me" && password == "secret":
			fmt.Fprint(w, `{"token":"good"}`)
		case q.URL.Path != "/token" && q.Header.Get("Authorization") == "Bearer good":
			return false
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, r.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}
		return true
	})
	o := fast()
	o.Keychain = nil
	s, _ := newStore(t, o)
	_, err := s.Login(t.Context(), r.host, "me", "wrong")
	wantErr(t, err, ErrUnauthorized, "wrong user name or password")
	_, err = s.StoredLogin(t.Context(), r.host)
	wantErr(t, err, ErrNoCredentials)
	file, err := s.Login(t.Context(), "https://"+r.host, "me", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v", file, st, err)
	}
	if user, err := s.StoredLogin(t.Context(), r.host); err != nil || user != "me" {
		t.Errorf("stored login of %q: %v", user, err)
	}
	if err := s.Logout(t.Context(), r.host); err != nil {
		t.Fatal(err)
	}
	_, err = s.StoredLogin(t.Context(), r.host)
	wantErr(t, err, ErrNoCredentials)
}

// TestLogoutSpellings: what older tools stored goes too, and nothing else.
func TestLogoutSpellings(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	file := filepath.Join(dir, "config.json")
	for _, raw := range []string{
		`{"auths":{"a.example":{},"https://a.example":{},"http://a.example":{},"b.example":{"auth":"eA=="}}}`,
		`{"auths":{"b.example":{"auth":"eA=="}}}`,
	} {
		if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := newStore(t, fast())
		if err := s.Logout(t.Context(), "a.example"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(got), "a.example") || !strings.Contains(string(got), "b.example") {
			t.Errorf("after the logout: %s %v", got, err)
		}
	}
	for _, raw := range []string{"null", ""} {
		if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := newStore(t, fast())
		if err := s.Logout(t.Context(), "a.example"); err != nil {
			t.Errorf("config.json of %q: %v", raw, err)
		}
	}
}

// TestHelperHangs: a helper that waits for somebody holds up neither its own
// command, once that is cancelled, nor any other.
func TestHelperHangs(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	started := filepath.Join(dir, "started")
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s.new; mv %[1]s.new %[1]s; exec sleep 1000\n", started)
	for name, content := range map[string]string{"docker-credential-hangs": script, "config.json": `{"credsStore":"hangs"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r := newRegistry(t)
	s, _ := newStore(t, fast())
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.Login(ctx, r.host, "me", "secret")
		failed <- err
	}()
	for {
		if _, err := os.Stat(started); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	raw, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if _, err := s.GC(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	wantErr(t, <-failed, context.Canceled)
}
