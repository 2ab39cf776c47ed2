package manager

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

// newCA makes a certificate of its own CA, in DER.
func newCA(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestCleanCACertificates(t *testing.T) {
	der, other := newCA(t, "one"), newCA(t, "two")
	one, two := pemOf("CERTIFICATE", der), pemOf("CERTIFICATE", other)
	withHeader := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: der}))
	tests := map[string]struct{ text, want, err string }{
		"one":                {one, one, ""},
		"two":                {one + two, one + two, ""},
		"each once":          {one + two + one, one + two, ""},
		"comments":           {"# of ours\n" + one + "\nand\n" + two + "the end", one + two, ""},
		"line ends":          {strings.ReplaceAll(one, "\n", "\r\n"), one, ""},
		"headers":            {withHeader, one, ""},
		"nothing":            {"", "", "no certificate in PEM form"},
		"DER":                {string(der), "", "no certificate in PEM form"},
		"text":               {"hello\n", "", "no certificate in PEM form"},
		"key":                {one + pemOf("PRIVATE KEY", []byte("k")), "", "a private key is among them"},
		"key of its kind":    {pemOf("EC PRIVATE KEY", []byte("k")) + one, "", "a private key is among them"},
		"encrypted key":      {one + pemOf("ENCRYPTED PRIVATE KEY", []byte("k")), "", "a private key is among them"},
		"broken key":         {one + "-----BEGIN PRIVATE KEY-----\nMI", "", "a private key is among them"},
		"request":            {pemOf("CERTIFICATE REQUEST", der), "", `a PEM block "CERTIFICATE REQUEST": only CERTIFICATE belongs there`},
		"trusted":            {pemOf("TRUSTED CERTIFICATE", der), "", `only CERTIFICATE belongs there`},
		"a name of the dark": {pemOf("X\x1b[2J", der), "", `a PEM block "X [2J"`},
		"no certificate":     {one + pemOf("CERTIFICATE", []byte("x")), "", "certificate 2: x509: "},
		"more behind it":     {pemOf("CERTIFICATE", append(slices.Clone(der), 0)), "", "certificate 1: x509: trailing data"},
		"cut":                {one + two[:len(two)-30], "", "1 of 2 PEM blocks cannot be decoded"},
		"cut inside":         {one[:100] + "\n" + two, "", "1 of 2 PEM blocks cannot be decoded"},
		"large":              {one + strings.Repeat("#", MaxCACertificates), "", "larger than 1048576 bytes"},
	}
	for name, tt := range tests {
		got, err := cleanCACertificates([]byte(tt.text))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", name, got, err, tt.want, tt.err)
		}
	}
}

func FuzzCleanCACertificates(f *testing.F) {
	one := pemOf("CERTIFICATE", newCA(f, "one"))
	f.Add([]byte(one))
	f.Add([]byte(one + "x" + one[:90]))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := cleanCACertificates(text)
		if err != nil {
			return
		}
		if again, err := cleanCACertificates([]byte(got)); err != nil || again != got {
			t.Errorf("%q became %q, and that %q, %v", text, got, again, err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(got)) {
			t.Errorf("%q holds no certificate", got)
		}
	})
}

// The root's certificates are every container's, unless it is told otherwise.
func TestDefaultCACertificates(t *testing.T) {
	one, two := pemOf("CERTIFICATE", newCA(t, "one")), pemOf("CERTIFICATE", newCA(t, "two"))
	root := t.TempDir()
	m, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(o CreateOptions, want string) {
		t.Helper()
		o, err := m.withCACertificates(o)
		if err != nil || o.HostConfig.CACertificates != want {
			t.Errorf("%q, %v; want %q", o.HostConfig.CACertificates, err, want)
		}
	}
	own := CreateOptions{HostConfig: HostConfig{CACertificates: two}}
	check(CreateOptions{}, "")
	check(own, two)
	file := filepath.Join(root, "ca-certificates.pem")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# the office\n" + one)
	check(CreateOptions{}, one)
	check(own, one+two)
	own.NoDefaultCACertificates = true
	check(own, two)
	check(CreateOptions{NoDefaultCACertificates: true}, "")

	write("")
	check(CreateOptions{NoDefaultCACertificates: true}, "")
	want := "read the default for all containers: CA certificates of " + file + ": no certificate in PEM form"
	if _, err := m.Create(t.Context(), CreateOptions{Image: "none"}, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	own.HostConfig.CACertificates = "x"
	if _, err := m.withCACertificates(own); !errors.Is(err, ErrInvalid) {
		t.Errorf("spoilt ones of a caller: %v", err)
	}
}

// Programs that do not look in the system's bundle are told by variables, which
// the image and the user can set or remove, and which no image of it gets.
func TestCAVariables(t *testing.T) {
	h := HostConfig{CACertificates: pemOf("CERTIFICATE", newCA(t, "one"))}
	img := testImage()
	img.Config.Config.Env = []string{"SSL_CERT_FILE=/image"}
	c, err := newConfig(CreateOptions{HostConfig: h, Env: []string{"NODE_EXTRA_CA_CERTS"}}, img)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{defaultPath, "HOSTNAME=" + c.Hostname, "SSL_CERT_FILE=/image", api.CAInstead}
	if !slices.Equal(c.Env, want) {
		t.Errorf("env %q, want %q", c.Env, want)
	}
	if got := committedEnv(&c, img.Config.Config.Env); !slices.Equal(got, want[2:3]) {
		t.Errorf("an image of it has %q", got)
	}
	if got := execEnvironment(&c, ExecOptions{}); !slices.Contains(got, api.CAInstead) {
		t.Errorf("exec has %q", got)
	}
	if r, err := startRequest(&c, "6.1", nil, network.Resolver{}); err != nil || r.CACertificates != h.CACertificates {
		t.Errorf("the guest is told of %q, %v", r.CACertificates, err)
	}
	if names := CACertificateNames(c.HostConfig); !slices.Equal(names, []string{"CN=one"}) {
		t.Errorf("inspect shows %q", names)
	}
	if names := CACertificateNames(state.HostConfig{}); names != nil {
		t.Errorf("inspect shows %q", names)
	}
}
