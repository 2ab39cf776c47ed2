package network

import (
	"net/netip"
	"os"
	"strings"
)

const (
	resolvConf    = "/etc/resolv.conf"
	maxResolvConf = 64 << 10
	maxResolvers  = 3 // MAXNS of the C library
	dnsPort       = 53
)

// Resolver is what a host's resolv.conf(5) says besides its name servers.
type Resolver struct{ Search, Options []string }

// HostResolver reads the host's file; empty where there is none.
func HostResolver() Resolver {
	var r Resolver
	for _, words := range directives(resolvConf) {
		switch words[0] {
		case "search", "domain":
			r.Search = words[1:] // the last one counts
		case "options":
			r.Options = append(r.Options, words[1:]...)
		}
	}
	return r
}

// resolvers are the name servers of a resolv.conf, or of a host without one
// the local one, as in the C library.
func resolvers(path string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, words := range directives(path) {
		if words[0] != "nameserver" || len(words) < 2 || len(out) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if len(out) == 0 {
		out = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return out
}

// directives are the lines of a resolv.conf, as words.
func directives(path string) [][]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, maxResolvConf)
	n, _ := f.Read(buf)
	var out [][]string
	for line := range strings.Lines(string(buf[:n])) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, words)
		}
	}
	return out
}
