package main

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	const help = `Usage:  docker run [OPTIONS] IMAGE

Options:
      --add-host list                    Add a custom host-to-IP mapping
                                         (host:ip)
  -a, --attach list                      Attach to STDIN, STDOUT or STDERR
      --cgroupns string                  Cgroup namespace to use
                                         'host':    Run the container in
                                         '--x':     not a flag
  -d, --detach                           Run container in background
      --disable-content-trust
      --health-start-interval duration   Time between

Run 'docker run --help' for more --information
      --none string   comes after the options
`
	want := []flag{
		{"add-host", "", "list"}, {"attach", "a", "list"}, {"cgroupns", "", "string"}, {"detach", "d", ""},
		{"disable-content-trust", "", ""}, {"health-start-interval", "", "duration"},
	}
	if got := parse(help); !reflect.DeepEqual(got, want) {
		t.Errorf("parse: %v, want %v", got, want)
	}
	if got := parse("Usage: docker wait CONTAINER\n"); len(got) != 0 {
		t.Errorf("without options: %v", got)
	}
	if got := versionOf("Docker version 28.2.2, build e6534b4\n"); got != "28.2.2" {
		t.Errorf("version %q", got)
	}
}

func TestRender(t *testing.T) {
	all := []command{{"run", []flag{{"a", "b", "c"}, {"d", "", ""}}}, {"wait", []flag{}}}
	text, err := render("28.2.2", all)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Docker   string    `json:"docker"`
		Commands []command `json:"commands"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Docker != "28.2.2" || !reflect.DeepEqual(got.Commands, all) {
		t.Errorf("read back: %v", got)
	}
}
