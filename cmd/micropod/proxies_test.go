package main

import (
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/image"
)

// The names and the rule are those of docker's client: ConfigFile.ParseProxyConfig.
func TestProxyEnv(t *testing.T) {
	all := image.Proxies{HTTP: "http://p:1", HTTPS: "http://p:2", No: "*.test,127.0.0.0/8", FTP: "http://p:3", All: "socks5://p:4"}
	for _, c := range []struct {
		proxies image.Proxies
		given   []string
		want    []string
	}{
		{want: nil},
		{all, nil, []string{
			"ALL_PROXY=socks5://p:4", "all_proxy=socks5://p:4", "FTP_PROXY=http://p:3", "ftp_proxy=http://p:3",
			"HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "HTTPS_PROXY=http://p:2", "https_proxy=http://p:2",
			"NO_PROXY=*.test,127.0.0.0/8", "no_proxy=*.test,127.0.0.0/8",
		}},
		{image.Proxies{HTTP: "http://p:1"}, []string{"HTTP_PROXY=mine"}, []string{"http_proxy=http://p:1"}},
		{image.Proxies{HTTP: "http://p:1"}, []string{"http_proxy", "HTTP_PROXY="}, nil},
		{image.Proxies{HTTP: "http://p:1"}, []string{"HTTP_PROXY_X=1"}, []string{"HTTP_PROXY=http://p:1", "http_proxy=http://p:1"}},
	} {
		if got := proxyEnv(c.proxies, c.given); !slices.Equal(got, c.want) {
			t.Errorf("%+v with %v: %v, want %v", c.proxies, c.given, got, c.want)
		}
	}
}
