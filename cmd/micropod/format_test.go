package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	testNow = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	testID  = strings.Repeat("0123456789abcdef", 4)
)

func testContainer() manager.Container {
	return manager.Container{
		ID: testID, Name: "web", Image: "docker.io/library/nginx:1@sha256:" + testID, ImageID: "sha256:" + testID,
		Created: testNow.Add(-2 * time.Hour), Command: []string{"nginx", "-g", "daemon off;", "--long"},
		State: manager.StateRunning, Status: "Up 2 hours", PID: 42, Platform: "linux/amd64",
		Labels: map[string]string{"b": "2", "a": "1\x1b"}, VMM: manager.VMMInfo{Name: "qemu"},
	}
}

func TestListFormats(t *testing.T) {
	exited := manager.Container{ID: strings.Repeat("f", 64), Name: "job\x1b[0m", Image: "busybox", State: manager.StateExited, ExitCode: 3, Created: testNow}
	tests := []struct {
		name, format string
		noTrunc      bool
		want         string
	}{
		{"default", "", false, "" +
			"ID             IMAGE     COMMAND                  CREATED                  STATE     PID       NAME\n" +
			"0123456789ab   nginx:1   \"nginx -g daemon off…\"   2 hours ago              running   42        web\n" +
			"ffffffffffff   busybox   \"\"                       Less than a second ago   exited              job\\x1b[0m\n"},
		{"template", "{{.ID}} {{.Names}} {{.State}} {{.ExitCode}}", false, "0123456789ab web running \nffffffffffff job\x1b[0m exited 3\n"},
		{"label", `{{.Label "b"}}{{.Label "none"}}`, false, "2\n\n"},
		{"no-trunc", "{{.ID}}|{{.Image}}|{{.Command}}", true, testID + "|docker.io/library/nginx:1@sha256:" + testID + "|\"nginx -g daemon off; --long\"\n" + strings.Repeat("f", 64) + "|busybox|\"\"\n"},
		{"table template", `table {{.Name}}\t{{upper .State}}\t{{.Label "a"}}`, false, "" +
			"NAME         STATE     A\n" +
			"web          RUNNING   1\\x1b\n" +
			"job\\x1b[0m   EXITED    \n"},
		{"functions", `{{json .Name}} {{join (split .Image ":") "+"}} {{pad .PID 1 1}}| {{truncate .ID 3}} {{title .State}} {{lower "AB"}}{{println "x"}}`, false,
			"\"web\" nginx+1  42 | 012 Running abx\n\n\"job\\u001b[0m\" busybox | fff Exited abx\n\n"},
	}
	for _, tt := range tests {
		f := parseRowFormat(tt.format, listTable)
		var rows []listRow
		for _, c := range []manager.Container{testContainer(), exited} {
			rows = append(rows, newListRow(c, tt.noTrunc, f.table, testNow))
		}
		var b bytes.Buffer
		if err := writeRows(&b, f, listHeader(), rows); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if b.String() != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, b.String(), tt.want)
		}
	}
}

func TestListJSON(t *testing.T) {
	var b bytes.Buffer
	f := parseRowFormat("json", listTable)
	if err := writeRows(&b, f, listHeader(), []listRow{newListRow(testContainer(), false, f.table, testNow)}); err != nil {
		t.Fatal(err)
	}
	var row map[string]string
	if err := json.Unmarshal(b.Bytes(), &row); err != nil {
		t.Fatal(err)
	}
	if row["ID"] != "0123456789ab" || row["Names"] != "web" || row["Labels"] != "a=1\x1b,b=2" || row["RunningFor"] != "2 hours ago" {
		t.Errorf("row %q", row)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("an escape character in %q", b.String())
	}
}

func TestBadTemplates(t *testing.T) {
	for _, format := range []string{"{{.ID", "{{.Nope}}", "table {{.Nope}}", "{{nope .ID}}"} {
		err := writeRows(&bytes.Buffer{}, parseRowFormat(format, listTable), listHeader(), []listRow{{}})
		if err == nil || !strings.Contains(err.Error(), "invalid --format") {
			t.Errorf("%s: error %v", format, err)
		}
	}
}

func TestParseFilters(t *testing.T) {
	got, err := parseFilters([]string{"status=running", "Status = exited", "label=a=b"}, listFilters())
	if err != nil || len(got["status"]) != 2 || got["status"][1] != "exited" || got["label"][0] != "a=b" {
		t.Errorf("filters %q, %v", got, err)
	}
	for _, bad := range []string{"health=well"} {
		if _, err := parseFilters([]string{bad}, listFilters()); err == nil {
			t.Errorf("filter %s was accepted", bad)
		}
	}
	for _, bad := range []string{"", "status", "=x"} {
		if _, err := checkFilter(bad); err == nil {
			t.Errorf("filter %q was accepted", bad)
		}
	}
}

func TestInspectTemplates(t *testing.T) {
	c := testContainer()
	c.Env = []string{"A=1", "B=2"}
	c.StopTimeout = new(time.Duration)
	*c.StopTimeout = 1500 * time.Millisecond
	tests := []struct{ format, want string }{
		{"{{.Id}}", testID},
		{"{{.ID}}", testID},
		{"{{.State.Status}} {{.State.Running}} {{.State.Pid}}", "running true 42"},
		{"{{.Name}} {{.Config.Image}}", "/web docker.io/library/nginx:1@sha256:" + testID},
		{`{{index .Config.Labels "b"}}`, "2"},
		{`{{join .Config.Env ","}}`, "A=1,B=2"},
		{"{{json .Args}}", `["-g","daemon off;","--long"]`},
		{"{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"},
		{"{{.MicroPod.VMM.Name}} {{json .Config.StopTimeout}}", "qemu 2"},
	}
	for _, tt := range tests {
		tmpl, err := parseTemplate(tt.format)
		if err != nil {
			t.Fatal(err)
		}
		v := inspectContainer(&c)
		if got, err := execute(tmpl, v); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.format, got, err, tt.want)
		}
	}
	tmpl, _ := parseTemplate("{{.State.Nope}}")
	if got, err := execute(tmpl, inspectContainer(&c)); err == nil {
		t.Errorf("a field that does not exist gave %q", got)
	}
}

func TestImages(t *testing.T) {
	old := manager.Image{ID: "sha256:" + testID, Names: []string{"docker.io/library/busybox:1", "docker.io/library/busybox:latest", "h:5000/a"},
		Digests: []string{"docker.io/library/busybox@sha256:" + testID}, Created: testNow.Add(-48 * time.Hour), Size: 1234567,
		Config: ocispec.Image{Config: ocispec.ImageConfig{Labels: map[string]string{"k": "v"}}}}
	dangling := manager.Image{ID: "sha256:" + strings.Repeat("e", 64), Created: testNow.Add(-time.Hour)}
	get := func(ref string) (*manager.Image, error) {
		switch ref {
		case "old":
			return &old, nil
		case "new":
			return &dangling, nil
		}
		return nil, errors.New("no such image")
	}
	for filters, want := range map[string]string{
		"": "es", "dangling=true": "e", "dangling=false": "s", "label=k": "s", "label=k=v": "s", "label=k=x": "", "label=x": "",
		"reference=busybox": "s", "reference=nginx": "", "before=new": "s", "since=old": "e", "reference=a*|dangling=false": "", "reference=*/a": "s",
		"label!=k": "e", "label!=x": "es", "until=24h": "s", "until=30m": "es", "until=72h": "", "before=new|until=72h": "",
	} {
		parsed := map[string][]string{}
		for f := range strings.SplitSeq(filters, "|") {
			k, v, ok := strings.Cut(f, "=")
			if ok {
				parsed[k] = append(parsed[k], v)
			}
		}
		if parsed["until"] != nil { // times before a moment are before now
			at, err := parseTime(parsed["until"][0], testNow)
			if err != nil {
				t.Fatal(err)
			}
			parsed["until"] = []string{at.Format(time.RFC3339)}
		}
		got, err := filterImages([]manager.Image{old, dangling}, parsed, get)
		if err != nil {
			t.Fatal(err)
		}
		ids := ""
		for _, i := range got {
			ids += map[bool]string{true: "e", false: "s"}[len(i.Names) == 0]
		}
		if ids != want {
			t.Errorf("filters %q keep %q, want %q", filters, ids, want)
		}
	}
	if _, err := filterImages(nil, map[string][]string{"before": {"nope"}}, get); err == nil {
		t.Error("before an unknown image was accepted")
	}
	for _, bad := range []string{"x", "1h|2h"} {
		if _, err := filterImages(nil, map[string][]string{"until": strings.Split(bad, "|")}, get); err == nil {
			t.Errorf("until %s was accepted", bad)
		}
	}
	pinned := manager.Image{ID: "sha256:" + testID, Names: []string{"a:1"}, Digests: []string{"a@sha256:" + testID, "b/c@sha256:" + testID}}
	if rows := imageRows(pinned, nil, false, true, testNow); len(rows) != 2 || rows[1].Repository != "b/c" || rows[1].Tag != none ||
		rows[1].Digest != "sha256:"+testID || rows[0].Repository != "a" {
		t.Errorf("rows of an image that has a digest and no tag in a repository: %+v", rows)
	}
	if rows := imageRows(pinned, []string{"b/*"}, false, false, testNow); len(rows) != 1 || rows[0].Digest != none {
		t.Errorf("rows that fit a pattern: %+v", rows)
	}
	var rows []imageRow
	for _, i := range []manager.Image{old, dangling} {
		rows = append(rows, imageRows(i, nil, false, true, testNow)...)
	}
	var b bytes.Buffer
	if err := writeRows(&b, parseRowFormat("", imagesTable), imageHeader(), rows); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"REPOSITORY   TAG       IMAGE ID       CREATED             SIZE\n" +
		"busybox      1         0123456789ab   2 days ago          1.23MB\n" +
		"busybox      latest    0123456789ab   2 days ago          1.23MB\n" +
		"h:5000/a     <none>    0123456789ab   2 days ago          1.23MB\n" +
		"<none>       <none>    eeeeeeeeeeee   About an hour ago   0B\n"
	if b.String() != want {
		t.Errorf("table\n%s\nwant\n%s", b.String(), want)
	}
	if rows[0].Digest != "sha256:"+testID || rows[2].Digest != none {
		t.Errorf("digests %q, %q", rows[0].Digest, rows[2].Digest)
	}
}

func TestDoctorLine(t *testing.T) {
	for want, c := range map[string]manager.Check{
		"ok      kvm: usable":                        {Name: "kvm", OK: true, Required: true, Detail: "usable", Fix: "no"},
		"missing kernel: not found (run the script)": {Name: "kernel", Required: true, Detail: "not found", Fix: "run the script"},
		`note    x: \x1b`:                            {Name: "x", Detail: "\x1b"},
	} {
		if got := doctorLine(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
