package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// encode sends r through the client's own path and returns what goes out.
func encode(t *testing.T, r Request) (data any, raw []byte) {
	t.Helper()
	h, err := r.build(context.Background(), nil)
	if err != nil {
		t.Fatalf("%s %+v: %v", r, r.Body, err)
	}
	if h.Body == nil {
		if h.ContentLength != 0 {
			t.Errorf("%s: content length %d without a body", r, h.ContentLength)
		}
		return nil, nil
	}
	if raw, err = io.ReadAll(h.Body); err != nil {
		t.Fatal(err)
	}
	if h.ContentLength != int64(len(raw)) || len(h.TransferEncoding) != 0 {
		t.Errorf("%s: content length %d of %d bytes, transfer encoding %v", r, h.ContentLength, len(raw), h.TransferEncoding)
	}
	return decode(t, raw), raw
}

func decode(t *testing.T, raw []byte) (data any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&data); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return data
}

func TestEveryRequestMatchesTheFacts(t *testing.T) {
	unseen := map[string]bool{}
	for name, e := range facts() {
		if !strings.HasPrefix(name, "GET ") {
			unseen[name] = true
			fieldNames(e.fields, name, unseen)
		}
	}
	for _, r := range fullSamples() {
		name, e, ok := route(r.Method, r.Path)
		if !ok {
			t.Errorf("%s: not in the facts", r)
			continue
		}
		delete(unseen, name)
		data, _ := encode(t, r)
		if (data != nil) != (e.fields != nil) {
			t.Errorf("%s: body %v, facts say %v", r, data, e.fields)
		}
		if len(e.fields) == 0 {
			continue
		}
		if err := judge(data, e.fields, name); err != nil {
			t.Errorf("%s: %v", r, err)
		}
		dataNames(data, name, unseen)
	}
	for name := range unseen {
		t.Errorf("%s: no request sets it", name)
	}
}

// fieldNames adds the dotted names of all fields to set.
func fieldNames(fields map[string]fact, at string, set map[string]bool) {
	for key, f := range fields {
		set[at+"."+key] = true
		fieldNames(f.fields, at+"."+key, set)
	}
}

// dataNames takes those of the keys in data away.
func dataNames(data any, at string, set map[string]bool) {
	switch v := data.(type) {
	case map[string]any:
		for key, value := range v {
			delete(set, at+"."+key)
			dataNames(value, at+"."+key, set)
		}
	case []any:
		for _, e := range v {
			dataNames(e, at, set)
		}
	}
}

func TestAbsentFieldsAreOmitted(t *testing.T) {
	for _, r := range leanSamples() {
		name, e, _ := route(r.Method, r.Path)
		data, raw := encode(t, r)
		var required []string
		for key, f := range e.fields {
			if f.required {
				required = append(required, key)
			}
		}
		// A drive, and a patch of nothing, need one of two.
		if strings.HasPrefix(name, "PUT /drives") {
			d := r.Body.(Drive)
			required = append(required, map[bool]string{true: "socket", false: "path_on_host"}[d.Socket != ""])
		}
		slices.Sort(required)
		got := slices.Sorted(maps.Keys(data.(map[string]any)))
		if !slices.Equal(got, required) {
			t.Errorf("%s sends %s, want only %v", r, raw, required)
		}
	}
}

// TestLimits puts each number and enumeration of each request out of its range.
func TestLimits(t *testing.T) {
	checked := 0
	for _, r := range fullSamples() {
		name, e, _ := route(r.Method, r.Path)
		data, raw := encode(t, r)
		for _, at := range places(data, e.fields, nil) {
			for _, bad := range at.fact.outside() {
				changed := decode(t, raw)
				at.set(changed, bad)
				if err := refusal(r, changed); err == nil {
					t.Errorf("%s: %s = %v is accepted", name, strings.Join(at.path, "."), bad)
				}
				checked++
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d values were tried", checked)
	}
	for what, r := range badSamples() {
		if _, err := r.build(context.Background(), nil); err == nil {
			t.Errorf("%s: %s is accepted", what, r)
		}
	}
}

type place struct {
	path []string
	fact fact
}

// places lists the leaves of data outside of arrays.
func places(data any, fields map[string]fact, path []string) []place {
	object, _ := data.(map[string]any)
	var out []place
	for key, value := range object {
		here := append(slices.Clone(path), key)
		out = append(out, place{here, fields[key]})
		out = append(out, places(value, fields[key].fields, here)...)
	}
	return out
}

func (p place) set(data, value any) {
	for _, key := range p.path[:len(p.path)-1] {
		data = data.(map[string]any)[key]
	}
	data.(map[string]any)[p.path[len(p.path)-1]] = value
}

// outside gives values that the field must not have.
func (f fact) outside() []any {
	switch {
	case f.enum != nil:
		return []any{"Nonsense", "nul\x00"}
	case f.kind == anInt && (f.min != 0 || f.max != 0) && f.max <= u32:
		return []any{f.min - 1, f.max + 1}
	case f.kind == anInt && f.min != 0:
		return []any{f.min - 1}
	case f.kind == aString && f.required:
		return []any{""}
	}
	return nil
}

// refusal decodes data as r's body; numbers that do not fit its types are
// refused by that alone.
func refusal(r Request, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	body := reflect.New(reflect.TypeOf(r.Body))
	if err := json.Unmarshal(raw, body.Interface()); err != nil {
		return err
	}
	r.Body = body.Elem().Interface()
	return r.check(nil)
}

// TestReleases holds the features table against the facts: a request is
// refused exactly by the releases that do not know it.
func TestReleases(t *testing.T) {
	releases := []string{"1.12.0", "1.12.1", "1.13.0", "1.13.2", "1.14.0", "1.14.3", "1.14.4", "1.15.0", "1.15.1", "1.16.0", "1.16.1", "1.17.0-dev"}
	for _, r := range append(fullSamples(), leanSamples()...) {
		name, e, _ := route(r.Method, r.Path)
		data, raw := encode(t, r)
		for _, release := range releases {
			v, err := ParseVersion(release)
			if err != nil {
				t.Fatal(err)
			}
			want := known(v, e.since) && knownFields(v, data, e.fields)
			err = r.check(&v)
			if (err == nil) != want {
				t.Errorf("%s %s on %s: %v, want ok %v", name, raw, release, err, want)
			}
			if err != nil && !strings.Contains(err.Error(), "needs firecracker") {
				t.Errorf("%s on %s: %v", name, release, err)
			}
		}
	}
}

func known(v Version, since string) bool {
	if since == "" {
		return true
	}
	if since == "1.14.4" && v.String() == "1.15.0" {
		return false // 1.14.4 is the younger one
	}
	var s Version
	if _, err := fmt.Sscanf(since, "%d.%d.%d", &s.Major, &s.Minor, &s.Patch); err != nil {
		panic(err)
	}
	return v.Minor > s.Minor || v.Minor == s.Minor && v.Patch >= s.Patch
}

func knownFields(v Version, data any, fields map[string]fact) bool {
	object, _ := data.(map[string]any)
	for key, value := range object {
		f := fields[key]
		if s, ok := value.(string); !known(v, f.since) || ok && !known(v, f.values[s]) || !knownFields(v, value, f.fields) {
			return false
		}
	}
	return true
}
