package networld

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"time"
)

// secure starts the server with TLS, whose CA is made for it.
func secure() error {
	ca, caKey, err := certify(nil, nil, x509.Certificate{
		Subject: pkix.Name{CommonName: "networld CA"}, KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true})
	if err != nil {
		return err
	}
	leaf, key, err := certify(ca, caKey, x509.Certificate{
		Subject: pkix.Name{CommonName: "world.test"}, DNSNames: []string{"world.test"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp4", "198.51.100.1:443", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}})
	if err != nil {
		return err
	}
	// That a client does not trust it is no news.
	s := http.Server{Handler: tells("secure world sees "), ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(l)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	return os.Setenv("NETWORLD_CA", string(text))
}

// certify makes a certificate for a day, signed by another or, without one, by
// itself.
func certify(by *x509.Certificate, byKey *ecdsa.PrivateKey, c x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if by == nil {
		by, byKey = &c, key
	}
	now := time.Now()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(now.UnixNano()), now.Add(-time.Hour), now.Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &c, by, &key.PublicKey, byKey)
	if err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	return made, key, err
}
