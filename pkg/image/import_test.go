package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestApplyChanges(t *testing.T) {
	env := func(e ...string) Settings { return Settings{ImageConfig: ocispec.ImageConfig{Env: e}} }
	set := func(f func(*Settings)) Settings { var s Settings; f(&s); return s }
	for in, want := range map[string]Settings{
		"": {}, "# comment": {},
		`CMD ["a","b c"]`:              set(func(s *Settings) { s.Cmd = []string{"a", "b c"} }),
		`cmd echo "x" $Y`:              set(func(s *Settings) { s.Cmd = []string{"/bin/sh", "-c", `echo "x" $Y`} }),
		`CMD []`:                       set(func(s *Settings) { s.Cmd = []string{} }),
		"CMD x|ENTRYPOINT [\"/e\"]":    set(func(s *Settings) { s.Entrypoint = []string{"/e"}; s.Cmd = []string{"/bin/sh", "-c", "x"} }),
		`ENV A=1 B="two words" C=x\ y`: env("A=1", "B=two words", "C=x y"),
		`ENV A=1|ENV A=2 B=$A`:         env("A=2", "B=1"), // the values of before the line
		`ENV A some words`:             env("A=some words"),
		`ENV A='$X'|ENV A=2`:           env("A=2"),
		`ENV A=1|ENV B=$A-${A}-${N:-none}-${A:+set}-${N:+set}x'$A'"$A"\$A`: env("A=1", `B=1-1-none-set-x$A1$A`),
		"ENV A=1 \\\n B=2|ENV C=$ D=a=b":                                   env("A=1", "B=2", "C=$", "D=a=b"),
		`ENV A="a\b\"c"`:                                                   env(`A=a\b"c`),
		`LABEL a.b="x y" 'c d'=e`:                                          set(func(s *Settings) { s.Labels = map[string]string{"a.b": "x y", "c d": "e"} }),
		`EXPOSE 80 53/udp 100-102/tcp`: set(func(s *Settings) {
			s.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}, "100/tcp": {}, "101/tcp": {}, "102/tcp": {}}
		}),
		`ENV U=me|USER $U:staff`:    set(func(s *Settings) { s.Env, s.User = []string{"U=me"}, "me:staff" }),
		`WORKDIR /a/../b|WORKDIR c`: set(func(s *Settings) { s.WorkingDir = "/b/c" }),
		`WORKDIR ../../x`:           set(func(s *Settings) { s.WorkingDir = "/x" }),
		`VOLUME ["/a b"]|VOLUME /c /d`: set(func(s *Settings) {
			s.Volumes = map[string]struct{}{"/a b": {}, "/c": {}, "/d": {}}
		}),
		`STOPSIGNAL SIGQUIT`:  set(func(s *Settings) { s.StopSignal = "SIGQUIT" }),
		`ONBUILD RUN make it`: set(func(s *Settings) { s.OnBuild = []string{"RUN make it"} }),
		`HEALTHCHECK NONE`:    set(func(s *Settings) { s.Healthcheck = &Healthcheck{Test: []string{"NONE"}} }),
		`HEALTHCHECK --interval=5s --retries=3 CMD curl -f x`: set(func(s *Settings) {
			s.Healthcheck = &Healthcheck{Test: []string{"CMD-SHELL", "curl -f x"}, Interval: 5e9, Retries: 3}
		}),
		`HEALTHCHECK CMD ["true"]`: set(func(s *Settings) { s.Healthcheck = &Healthcheck{Test: []string{"CMD", "true"}} }),
	} {
		var got Settings
		if err := applyChanges(&got, strings.Split(in, "|")); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"RUN x", "FROM x", "COPY a b", "CMD", "ENV", "ENV A", "ENV =x", `ENV A="x`, "ENV A=${B", "ENV A=${B:?x}", "ENV A=${}", "ENV A=1 B",
		"EXPOSE x", "EXPOSE 70000", "EXPOSE 5-3", "EXPOSE 80/ip", "USER a b", "STOPSIGNAL SIGNOTHING", "ONBUILD FROM x",
		"HEALTHCHECK", "HEALTHCHECK x", "HEALTHCHECK NONE x", "HEALTHCHECK CMD", "HEALTHCHECK CMD []", "HEALTHCHECK --interval=x CMD y",
		"HEALTHCHECK --foo=1s CMD y", "HEALTHCHECK --retries=-1 CMD y", "VOLUME [\"\"]", "ENV A=a\x00b",
	} {
		err := applyChanges(&Settings{}, []string{in})
		if err == nil {
			t.Errorf("%s was accepted", in)
			continue
		}
		wantErr(t, err, ErrReference, "change")
	}
}

func FuzzChange(f *testing.F) {
	f.Add("ENV A=${B:-${C:+d}}'\"\\")
	f.Add(`HEALTHCHECK --interval=5s CMD ["a"]`)
	f.Add("EXPOSE 1-65535/udp")
	f.Fuzz(func(t *testing.T, line string) {
		c := Settings{ImageConfig: ocispec.ImageConfig{Env: []string{"B=b"}}}
		if applyChanges(&c, []string{line}) == nil {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestImport(t *testing.T) {
	plain := layerTar(t, "etc/hello", []byte("hello"))
	dir := t.TempDir()
	for name, content := range map[string][]byte{"plain": plain, "gzip": gz(t, plain), "zstd": zst(t, plain)} {
		s, layers := newStore(t, fast())
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := s.Import(t.Context(), f, ImportOptions{
			Name: "mine", Message: "by hand", Platform: "linux/arm64",
			Changes: []string{"ENV A=b", "HEALTHCHECK CMD true", "ONBUILD RUN x"}})
		if err != nil {
			t.Fatal(err)
		}
		if got.DiffIDs[0] != digestOf(plain) || got.Platform != "linux/arm64" || got.Names[0] != "mine:latest" || got.Config.Config.Env[0] != "A=b" {
			t.Errorf("%s: imported %+v", name, got)
		}
		d, err := got.Docker()
		if err != nil || d.Config.Healthcheck == nil || d.Config.OnBuild[0] != "RUN x" || d.Comment != "by hand" || d.History[0].Comment != "by hand" {
			t.Errorf("%s: docker's fields are %+v, %v", name, d, err)
		}
		if len(layers.kept(t)) != 1 {
			t.Errorf("%s: layers %v", name, layers.kept(t))
		}
	}
	s, layers := newStore(t, fast())
	for name, o := range map[string]ImportOptions{
		"digest": {Name: "a@" + digestOf(plain)}, "layout": {Name: "oci:/x"}, "change": {Changes: []string{"RUN x"}}, "platform": {Platform: "a/b/c/d"},
	} {
		if _, err := s.Import(t.Context(), bytes.NewReader(plain), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	checkEmpty(t, s, layers)
}

// TestFetch: the file comes with no credentials, and the server sends us to no
// place of ours.
func TestFetch(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/away":
			http.Redirect(w, q, "https://127.0.0.1:1/", http.StatusFound)
		case "/down":
			http.Redirect(w, q, "http://example.com/", http.StatusFound)
		}
		if q.Header.Get("Authorization") != "" {
			t.Error("credentials were sent")
		}
		fmt.Fprint(w, "content")
	}))
	defer srv.Close()
	o := fast()
	o.Keychain, o.Transport = basic{"me", "secret"}, secureTransport(srv)
	s, _ := newStore(t, o)
	r, err := s.Fetch(t.Context(), "https://example.com/ok")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for url, says := range map[string]string{
		"https://example.com/missing": "404", "https://example.com/away": "", "https://example.com/down": "plain HTTP is refused",
		"file:///etc/passwd": "no http or https", "https://": "no http or https",
	} {
		_, err := s.Fetch(t.Context(), url)
		wantErr(t, err, nil, says)
	}
}

// TestImportBomb: a small file that expands without end is stopped, and what it
// took is given back.
func TestImportBomb(t *testing.T) {
	member := gz(t, make([]byte, 16<<20))
	bomb := bytes.Repeat(member, 2*ratioFree/(16<<20))
	from := &ctxReader{ctx: t.Context(), r: bytes.NewReader(bomb)}
	plain, free, err := decompressFile(bufio.NewReader(from))
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	n, err := io.Copy(io.Discard, &boundReader{plain: plain, from: from})
	wantErr(t, err, ErrInvalid, "expand to more than")
	if n > ratioFree+2*maxRatio*int64(len(bomb)) {
		t.Errorf("%d bytes came out of %d", n, len(bomb))
	}
	o := fast()
	o.MaxSpool = 1 << 20
	s, layers := newStore(t, o)
	_, err = s.Import(t.Context(), bytes.NewReader(bomb), ImportOptions{Name: "x"})
	wantErr(t, err, ErrInvalid, "larger than")
	checkEmpty(t, s, layers)
}
