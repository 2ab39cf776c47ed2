package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// registry serves the image with a real registry on the loopback. Its address
// is good until stop is called.
func (b *bench) registry() (address string, stop func(), err error) {
	if address, err = freeAddress(); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(b.dir, "registry")
	config := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	serve := b.command("docker-registry", "serve", config)
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { serve.Process.Kill(); serve.Wait() }
	if !answers("http://" + address + "/v2/") {
		stop()
		return "", nil, fmt.Errorf("docker-registry does not answer: %s", log.String())
	}
	_, err = b.output("skopeo", "copy", "--quiet", "--dest-tls-verify=false",
		"oci:"+b.layout+":"+b.image, "docker://"+address+"/"+b.image+":latest")
	if err != nil {
		stop()
		return "", nil, err
	}
	return address, stop, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// answers waits for a server.
func answers(url string) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r, err := http.Get(url)
		if err != nil {
			continue
		}
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}
