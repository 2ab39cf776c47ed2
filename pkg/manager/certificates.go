package manager

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
)

// MaxCACertificates bounds a file of CA certificates, and all of a container's,
// in bytes.
const MaxCACertificates = api.MaxCACertificates

// ReadCACertificates reads a file for HostConfig.CACertificates.
func ReadCACertificates(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxCACertificates+1))
	if err != nil {
		return "", err
	}
	text, err := cleanCACertificates(b)
	if err != nil {
		return "", fmt.Errorf("CA certificates of %s: %w", path, err)
	}
	return text, nil
}

// withCACertificates adds the root's certificates to those of the user.
func (m *Manager) withCACertificates(o CreateOptions) (CreateOptions, error) {
	h := &o.HostConfig
	if !o.NoDefaultCACertificates {
		text, err := ReadCACertificates(filepath.Join(m.state.Root(), fileCACerts))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return o, fmt.Errorf("read the default for all containers: %w", err)
		}
		h.CACertificates = text + h.CACertificates
	}
	if h.CACertificates == "" {
		return o, nil
	}
	text, err := cleanCACertificates([]byte(h.CACertificates))
	if err != nil {
		return o, fmt.Errorf("%w: CA certificates: %w", ErrInvalid, err)
	}
	h.CACertificates = text
	return o, nil
}

// cleanCACertificates is text with nothing but its certificates, each once.
func cleanCACertificates(text []byte) (string, error) {
	certs, err := parseCACertificates(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	seen := map[string]bool{}
	for _, c := range certs {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		}
	}
	return b.String(), nil
}

// parseCACertificates reads PEM. Text around the blocks is a comment, as for
// other programs, but not a block that they would leave out without a word. A key
// is refused, since a container would get to see it.
func parseCACertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxCACertificates {
		return nil, fmt.Errorf("larger than %d bytes", MaxCACertificates)
	}
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil, errors.New("a private key is among them: only certificates belong there")
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %q: only CERTIFICATE belongs there", api.Clean(block.Type, 64))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	switch begun := bytes.Count(text, []byte("-----BEGIN ")); {
	case begun != len(certs):
		return nil, fmt.Errorf("%d of %d PEM blocks cannot be decoded", begun-len(certs), begun)
	case begun == 0:
		return nil, errors.New("no certificate in PEM form (to convert one: openssl x509 -inform DER)")
	}
	return certs, nil
}

// CACertificateNames are the subjects of HostConfig.CACertificates.
func CACertificateNames(h HostConfig) []string {
	certs, err := parseCACertificates([]byte(h.CACertificates))
	if err != nil {
		return nil // none, or a record that was spoilt
	}
	var names []string
	for _, c := range certs {
		names = append(names, c.Subject.String())
	}
	return names
}

// caVariables tell programs that do not look where the system has its
// certificates: OpenSSL's has a directory of them by their hashes, Node.js and
// Python's requests bring their own. Node.js adds to those.
func caVariables(h HostConfig) []string {
	if h.CACertificates == "" {
		return nil
	}
	return []string{"SSL_CERT_FILE=" + api.CABundle, "NODE_EXTRA_CA_CERTS=" + api.CAExtra, api.CAInstead}
}
