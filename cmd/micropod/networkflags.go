package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// networkFlags say how a container reaches others and is reached.
type networkFlags struct {
	publish    []string
	publishAll bool
	asked      []manager.NetworkAttachment
	oneNetwork
}

func (n *networkFlags) register(f *pflag.FlagSet) {
	f.VarP(newChecked(&n.publish, "list", checkPublish), "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&n.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	const usage = `Connect a container to a network: "bridge" (root's default), "user" (that of others), "none", "container:<name|id>" (in its microVM) or one of "network ls"`
	f.Var(&networkValue{&n.asked}, "network", usage)
	f.Var(&networkValue{&n.asked}, "net", usage)
	const alias = "Add network-scoped alias for the container"
	f.Var(newChecked(&n.aliases, "list", unchecked), "network-alias", alias)
	f.Var(newChecked(&n.aliases, "list", unchecked), "net-alias", alias)
	for _, older := range []string{"net", "net-alias"} { // docker's older names
		f.Lookup(older).Hidden = true
	}
	f.StringVar(&n.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&n.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	f.StringVar(&n.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
}

// apply puts what was typed into the manager's words.
func (n *networkFlags) apply(o *manager.CreateOptions, c *manager.HostConfig) error {
	var err error
	if o.Networks, err = n.oneNetwork.apply(n.asked); err != nil {
		return err
	}
	c.PublishAll = n.publishAll
	for _, p := range n.publish {
		b, err := parsePublish(p)
		if err != nil {
			return err
		}
		c.PortBindings = append(c.PortBindings, b...)
	}
	return nil
}

func checkPublish(s string) (string, error) {
	_, err := parsePublish(s)
	return s, err
}

// parsePublish reads docker's [ADDRESS:][PORT[-PORT]]:PORT[-PORT][/PROTOCOL],
// or its long form of KEY=VALUE.
func parsePublish(s string) ([]manager.PortBinding, error) {
	if strings.Contains(s, "=") {
		return parseLongPublish(s)
	}
	mappings, err := nat.ParsePortSpec(s)
	if err != nil {
		return nil, err
	}
	var out []manager.PortBinding
	for _, m := range mappings {
		b := manager.PortBinding{Port: string(m.Port), HostIP: m.Binding.HostIP}
		if b.HostPort, b.HostPortEnd, err = hostPorts(m.Binding.HostPort); err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", m.Binding.HostPort)
		}
		if err := publishable(b); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// hostPorts reads "", PORT or PORT-PORT.
func hostPorts(s string) (from, to uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil || !isRange {
		return uint16(a), 0, err
	}
	b, err := strconv.ParseUint(last, 10, 16)
	return uint16(a), uint16(b), err
}

func publishable(b manager.PortBinding) error {
	number, proto, _ := strings.Cut(b.Port, "/")
	if number == "0" {
		return fmt.Errorf("invalid containerPort: %s", number)
	}
	if proto != "tcp" && proto != "udp" {
		return &unsupportedFlagError{name: "publish", value: b.Port, why: "only tcp and udp"}
	}
	if b.HostIP != "" {
		if _, err := netip.ParseAddr(b.HostIP); err != nil {
			return fmt.Errorf("invalid IP address: %s", b.HostIP)
		}
	}
	return nil
}

// parseLongPublish reads target=PORT,published=PORT,protocol=tcp,mode=host.
func parseLongPublish(s string) ([]manager.PortBinding, error) {
	var target, published string
	proto := "tcp"
	for _, field := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(key) {
		case "target":
			target = value
		case "published":
			published = value
		case "protocol":
			proto = value
		case "mode":
			if value != "host" && value != "ingress" {
				return nil, fmt.Errorf("invalid publish mode value (%s): must be either 'ingress' or 'host'", value)
			}
		default:
			return nil, fmt.Errorf("invalid field key: %s", key)
		}
	}
	if target == "" {
		return nil, fmt.Errorf("missing mandatory field '%s'", "target")
	}
	if published != "" {
		return parsePublish(published + ":" + target + "/" + proto)
	}
	return parsePublish(target + "/" + proto)
}

// portMap is docker's form of published ports: for each of the guest, where the
// host listens.
func portMap(bindings []manager.PortBinding, requested bool) map[string][]portView {
	out := map[string][]portView{}
	for _, b := range bindings {
		view := portView{HostIP: b.HostIP}
		if b.HostPort != 0 {
			view.HostPort = strconv.Itoa(int(b.HostPort))
		}
		if b.HostPortEnd != 0 {
			view.HostPort += "-" + strconv.Itoa(int(b.HostPortEnd))
		}
		if b.HostIP != "" || requested {
			out[b.Port] = append(out[b.Port], view)
			continue
		}
		for _, any := range []string{"0.0.0.0", "::"} {
			out[b.Port] = append(out[b.Port], portView{HostIP: any, HostPort: view.HostPort})
		}
	}
	return out
}

type portView struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

func (p portView) String() string {
	if strings.Contains(p.HostIP, ":") {
		return "[" + p.HostIP + "]:" + p.HostPort
	}
	return p.HostIP + ":" + p.HostPort
}

// shownPorts is docker's PORTS column.
func shownPorts(c *manager.Container) string {
	if len(c.Networks) == 0 {
		return ""
	}
	published := portMap(publishedPorts(c), false)
	var out []string
	for _, p := range sortedPorts(published) {
		for _, at := range published[p] {
			out = append(out, at.String()+"->"+p)
		}
	}
	for _, e := range c.ExposedPorts {
		if _, ok := published[e]; !ok {
			out = append(out, e)
		}
	}
	return strings.Join(out, ", ")
}

// publishedPorts are those of all networks: one of them has any.
func publishedPorts(c *manager.Container) []manager.PortBinding {
	var out []manager.PortBinding
	for _, n := range c.Networks {
		out = append(out, n.Ports...)
	}
	return out
}

// sortedPorts are the keys by number and protocol.
func sortedPorts(ports map[string][]portView) []string {
	keys := make([]nat.Port, 0, len(ports))
	for p := range ports {
		keys = append(keys, nat.Port(p))
	}
	nat.Sort(keys, func(a, b nat.Port) bool {
		return a.Int() < b.Int() || a.Int() == b.Int() && a.Proto() < b.Proto()
	})
	var out []string
	for _, k := range keys {
		out = append(out, string(k))
	}
	return out
}
