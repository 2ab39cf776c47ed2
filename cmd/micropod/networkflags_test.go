package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/manager"
)

func TestParsePublish(t *testing.T) {
	type list = []manager.PortBinding
	for _, c := range []struct {
		in   string
		want list
	}{
		{"80", list{{Port: "80/tcp"}}},
		{"8080:80", list{{Port: "80/tcp", HostPort: 8080}}},
		{"8080:80/udp", list{{Port: "80/udp", HostPort: 8080}}},
		{"127.0.0.1:8080:80", list{{Port: "80/tcp", HostIP: "127.0.0.1", HostPort: 8080}}},
		{"127.0.0.1::80", list{{Port: "80/tcp", HostIP: "127.0.0.1"}}},
		{"[::1]:8080:80", list{{Port: "80/tcp", HostIP: "::1", HostPort: 8080}}},
		{"8000-8001:80-81", list{{Port: "80/tcp", HostPort: 8000}, {Port: "81/tcp", HostPort: 8001}}},
		{"8000-8010:80", list{{Port: "80/tcp", HostPort: 8000, HostPortEnd: 8010}}},
		{"published=8080,target=80,protocol=udp", list{{Port: "80/udp", HostPort: 8080}}},
		{"target=80,mode=host", list{{Port: "80/tcp"}}},
	} {
		got, err := parsePublish(c.in)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.in, got, err, c.want)
		}
	}
	for in, want := range map[string]string{
		"":                      "no port specified",
		"x":                     "invalid containerPort",
		"0":                     "invalid containerPort",
		"65536":                 "invalid containerPort",
		"8080:":                 "no port specified",
		"70000:80":              "invalid hostPort",
		"host:80:80":            "invalid IP address",
		"8000-8001:80-82":       "invalid ranges",
		"80/sctp":               "only tcp and udp",
		"80/icmp":               "icmp",
		"published=8080":        "missing mandatory field",
		"target=80,mode=x":      "invalid publish mode",
		"target=80,name=x":      "invalid field key",
		"[fe80::1%eth0]:80:80":  "invalid IP address",
		"1.2.3.4:80:80:80:80:1": "invalid",
	} {
		if _, err := parsePublish(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestPortMap(t *testing.T) {
	running := []manager.PortBinding{
		{Port: "80/tcp", HostPort: 8080},
		{Port: "80/tcp", HostIP: "127.0.0.1", HostPort: 81},
		{Port: "53/udp", HostIP: "::1", HostPort: 53},
	}
	got := portMap(running, false)
	want := map[string][]portView{
		"80/tcp": {{"0.0.0.0", "8080"}, {"::", "8080"}, {"127.0.0.1", "81"}},
		"53/udp": {{"::1", "53"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	c := &manager.Container{ExposedPorts: []string{"443/tcp", "80/tcp"}, Networks: []manager.Network{{Ports: running}}}
	if got, want := shownPorts(c), "[::1]:53->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:81->80/tcp, 443/tcp"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	requested := portMap([]manager.PortBinding{{Port: "80/tcp", HostPort: 8000, HostPortEnd: 8010}}, true)
	if !reflect.DeepEqual(requested, map[string][]portView{"80/tcp": {{"", "8000-8010"}}}) {
		t.Errorf("requested: %v", requested)
	}
}
