package guest

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
)

// writeEtcFiles writes the files that go over those of the image, and returns
// them by their path in the container.
func writeEtcFiles(parent string, r api.StartRequest) (map[string]string, error) {
	dir := filepath.Join(parent, r.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if r.EtcOf != "" {
		return etcFilesOf(filepath.Join(parent, r.EtcOf))
	}
	content := map[string]string{
		"hosts":       hostsFile(r.Hosts),
		"hostname":    r.Hostname + "\n",
		"resolv.conf": resolvFile(r.DNS),
	}
	files := make(map[string]string, len(content))
	for name, text := range content {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return nil, err
		}
		files["/etc/"+name] = p
	}
	return files, nil
}

// etcFile is a file that a container has in its /etc, with what was last written.
type etcFile struct{ path, text string }

// replace changes the file, unless somebody in the container has. It stays the same
// one, as it is mounted there.
func (f *etcFile) replace(text string) error {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	now, err := io.ReadAll(io.LimitReader(file, int64(len(f.text))+1))
	if err != nil || string(now) != f.text {
		return err
	}
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	f.text = text
	return file.Truncate(int64(len(text)))
}

// etcFilesOf are the files of another container, by their path in any of them.
func etcFilesOf(dir string) (map[string]string, error) {
	files := make(map[string]string)
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		p := filepath.Join(dir, name)
		if _, err := os.Lstat(p); err != nil {
			return nil, err
		}
		files["/etc/"+name] = p
	}
	return files, nil
}

// hostsFile is docker's /etc/hosts with the lines of extra at its end.
func hostsFile(extra []api.Host) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, strings.Join(h.Names, " "))
	}
	return b.String()
}

// resolvFile is /etc/resolv.conf, resolv.conf(5).
func resolvFile(d api.DNS) string {
	var b strings.Builder
	for _, s := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.String()
}

// checkNames refuses what would become another word or line in a file of /etc.
func checkNames(r api.StartRequest) error {
	if r.Hostname == "" || len(r.Hostname) > 64 || !isWord(r.Hostname) {
		return invalid("hostname", "bad host name %q", api.Clean(r.Hostname, 128))
	}
	if len(r.Domainname) > 64 || r.Domainname != "" && !isWord(r.Domainname) {
		return invalid("hostname", "bad domain name %q", api.Clean(r.Domainname, 128))
	}
	return checkHosts(r.Hosts, r.DNS)
}

// checkHosts is checkNames for what follows a container's networks.
func checkHosts(hosts []api.Host, dns api.DNS) error {
	for _, h := range hosts {
		if _, err := netip.ParseAddr(h.Addr); err != nil {
			return invalid("hosts", "bad address %q", api.Clean(h.Addr, 128))
		}
		for _, n := range h.Names {
			if !isWord(n) {
				return invalid("hosts", "bad name %q", api.Clean(n, 128))
			}
		}
	}
	for _, words := range [][]string{dns.Servers, dns.Search, dns.Options} {
		for _, w := range words {
			if !isWord(w) {
				return invalid("dns", "bad word %q", api.Clean(w, 128))
			}
		}
	}
	return nil
}

// isWord reports whether s is one word: not empty, no blank, control character
// or comment sign.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' })
}
