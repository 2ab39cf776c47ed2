package main

import (
	"slices"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// certFlags say whom a container trusts beside whom its image does.
type certFlags struct{ caCerts []string }

func (c *certFlags) register(f *pflag.FlagSet) {
	f.Var(newChecked(&c.caCerts, "file", unchecked), "ca-cert",
		`Trust the CA certificates of a PEM file too ("" leaves out the default, ca-certificates.pem in the root directory)`)
}

// certificates reads the files: what is in them is the container's from now on.
func (c *certFlags) certificates(o *manager.CreateOptions) error {
	o.NoDefaultCACertificates = slices.Contains(c.caCerts, "")
	for _, file := range c.caCerts {
		if file == "" {
			continue
		}
		text, err := manager.ReadCACertificates(file)
		if err != nil {
			return err
		}
		o.HostConfig.CACertificates += text
	}
	return nil
}
