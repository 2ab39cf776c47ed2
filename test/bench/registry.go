package main

import (
	"os"
	"path/filepath"

	"github.com/micropod/micropod/test/registry"
)

// registry serves the image with a real registry on the loopback. Its address
// is good until stop is called.
func (b *bench) registry() (address string, stop func(), err error) {
	dir := filepath.Join(b.dir, "registry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	r, err := registry.Start(b.ctx, dir, "")
	if err != nil {
		return "", nil, err
	}
	_, err = b.output("skopeo", "copy", "--quiet", "--dest-tls-verify=false",
		"oci:"+b.layout+":"+b.image, "docker://"+r.Address+"/"+b.image+":latest")
	if err != nil {
		r.Stop()
		return "", nil, err
	}
	return r.Address, r.Stop, nil
}
