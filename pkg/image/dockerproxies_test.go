package image

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDockerProxies(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	const full = `{"auths":{}, "proxies":{
		"default":{"httpProxy":"http://p:1","httpsProxy":"http://p:2","noProxy":"*.test","ftpProxy":"http://p:3","allProxy":"socks5://p:4"},
		"tcp://other:2376":{"httpProxy":"http://q:1"}}}`
	for _, c := range []struct {
		text, daemon string
		want         Proxies
		fails        bool
	}{
		{text: "{}", daemon: "unix:///x"},
		{full, "unix:///x", Proxies{"http://p:1", "http://p:2", "*.test", "http://p:3", "socks5://p:4"}, false},
		{full, "tcp://other:2376", Proxies{HTTP: "http://q:1"}, false},
		{`{"proxies":null}`, "unix:///x", Proxies{}, false},
		{`{"proxies":[]}`, "unix:///x", Proxies{}, true},
		{`{`, "unix:///x", Proxies{}, true},
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := DockerProxies(c.daemon); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s for %s: %+v, %v; want %+v", c.text, c.daemon, got, err, c.want)
		}
	}
}
