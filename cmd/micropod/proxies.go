package main

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/image"
)

// dockerHost is where docker's client finds its daemon by default. There is none
// here, but proxies may be for the containers of one.
const dockerHost = "unix:///var/run/docker.sock"

// proxies are the variables that docker's config.json adds to those of -e. A file
// that cannot be read is told of, as docker does, and has none.
func (a *app) proxies(given []string) []string {
	p, err := image.DockerProxies(cmp.Or(os.Getenv("DOCKER_HOST"), dockerHost))
	if err != nil {
		a.warn("no proxies for the container: %v", err)
	}
	return proxyEnv(p, given)
}

// proxyEnv sets each proxy in both spellings, but for the names that the user
// gave, with whatever value or none. Pure.
func proxyEnv(p image.Proxies, given []string) []string {
	var out []string
	for _, v := range []struct{ name, value string }{
		{"ALL_PROXY", p.All}, {"FTP_PROXY", p.FTP}, {"HTTP_PROXY", p.HTTP}, {"HTTPS_PROXY", p.HTTPS}, {"NO_PROXY", p.No},
	} {
		for _, name := range []string{v.name, strings.ToLower(v.name)} {
			if v.value != "" && !slices.ContainsFunc(given, setsVariable(name)) {
				out = append(out, name+"="+v.value)
			}
		}
	}
	return out
}

// setsVariable tells whether -e is for a variable.
func setsVariable(name string) func(string) bool {
	return func(kv string) bool { return kv == name || strings.HasPrefix(kv, name+"=") }
}
