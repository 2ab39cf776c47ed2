package image

import (
	"encoding/json"
	"fmt"
)

// Proxies are what docker's config.json hands to each new container, as
// documented in "Use a proxy server with the Docker CLI".
type Proxies struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	No    string `json:"noProxy"`
	FTP   string `json:"ftpProxy"`
	All   string `json:"allProxy"`
}

// DockerProxies reads the proxies for the containers of a daemon, by its URL, or
// if there are none the default ones.
func DockerProxies(daemon string) (Proxies, error) {
	c, err := readDockerConfig()
	if err != nil {
		return Proxies{}, err
	}
	p, err := c.proxies(daemon)
	if err != nil {
		return Proxies{}, fmt.Errorf("read %s: proxies: %w", c.path, err)
	}
	return p, nil
}

func (c *dockerConfig) proxies(daemon string) (Proxies, error) {
	raw, ok := c.fields["proxies"]
	if !ok {
		return Proxies{}, nil
	}
	var all map[string]Proxies
	if err := json.Unmarshal(raw, &all); err != nil {
		return Proxies{}, err
	}
	if p, ok := all[daemon]; ok {
		return p, nil
	}
	return all["default"], nil
}
