package image

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRemoteTags(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 1)
	for _, tag := range []string{"a", "b", "c"} {
		r.push(t, "x/y", tag, img)
	}
	s, _ := newStore(t, fast())
	want := []string{r.host + "/x/y:a", r.host + "/x/y:b", r.host + "/x/y:c"}
	got, err := s.RemoteTags(t.Context(), r.host+"/x/y")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("tags %q, %v", got, err)
	}
	_, err = s.RemoteTags(t.Context(), r.host+"/none")
	wantErr(t, err, ErrNotFound)
	_, err = s.RemoteTags(t.Context(), "oci:/x")
	wantErr(t, err, ErrReference)

	answer := func(f func(page string) (link, body string)) {
		r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasSuffix(q.URL.Path, "/tags/list") {
				return false
			}
			link, body := f(q.URL.Query().Get("last"))
			if link != "" {
				w.Header().Set("Link", "<"+link+`>; rel="next"`)
			}
			fmt.Fprint(w, body)
			return true
		})
	}
	// Pages, one of which fails once.
	failed := false
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		last := q.URL.Query().Get("last")
		switch {
		case !strings.HasSuffix(q.URL.Path, "/tags/list"):
			return false
		case last == "":
			w.Header().Set("Link", `</v2/x/y/tags/list?last=b>; rel="next"`)
			fmt.Fprint(w, `{"tags":["a","b"]}`)
		case !failed:
			failed = true
			w.WriteHeader(http.StatusBadGateway)
		default:
			fmt.Fprint(w, `{"tags":["c"]}`)
		}
		return true
	})
	if got, err = s.RemoteTags(t.Context(), r.host+"/x/y"); err != nil || !slices.Equal(got, want) || !failed {
		t.Errorf("in pages: %q, %v", got, err)
	}
	for says, f := range map[string]func(string) (string, string){
		"on another host": func(string) (string, string) { return "http://169.254.169.254/tags", `{"tags":["a"]}` },
		"has no end":      func(string) (string, string) { return "/v2/x/y/tags/list?last=x", `{"tags":["a"]}` },
		"tag ":            func(string) (string, string) { return "", `{"tags":["../../x"]}` },
		"decode list":     func(string) (string, string) { return "", `[` },
		"larger than":     func(string) (string, string) { return "", strings.Repeat(" ", maxDocument+1) },
	} {
		answer(f)
		_, err := s.RemoteTags(t.Context(), r.host+"/x/y")
		wantErr(t, err, ErrInvalid, says)
	}
}
