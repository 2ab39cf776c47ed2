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
	mode       string
}

func (n *networkFlags) register(f *pflag.FlagSet) {
	f.VarP(newChecked(&n.publish, "list", checkPublish), "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&n.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	usage := `Connect a container to a network: "user" (the default) or "none"`
	f.Var(&networkValue{&n.mode}, "network", usage)
	f.Var(&networkValue{&n.mode}, "net", usage)
	f.Lookup("net").Hidden = true // docker's older name
}

// apply puts what was typed into the manager's words.
func (n *networkFlags) apply(c *manager.HostConfig) error {
	c.NetworkMode, c.PublishAll = n.mode, n.publishAll
	for _, p := range n.publish {
		b, err := parsePublish(p)
		if err != nil {
			return err
		}
		c.PortBindings = append(c.PortBindings, b...)
	}
	return nil
}

// networkValue is a mode of the network.
type networkValue struct{ mode *string }

func (v *networkValue) Type() string   { return "network" }
func (v *networkValue) String() string { return *v.mode }

func (v *networkValue) Set(s string) error {
	kind, _, _ := strings.Cut(s, ":")
	switch {
	case s == manager.NetworkNone || s == manager.NetworkUser:
		*v.mode = s
	case s == "default":
		*v.mode = ""
	case kind == "host":
		return &unsupportedFlagError{name: "network", value: s, why: "the guest has a network stack of its own, in its own kernel"}
	default:
		return &unsupportedFlagError{name: "network", value: s}
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

type networkSettingsView struct {
	Ports                          map[string][]portView
	Networks                       map[string]endpointView
	IPAddress, Gateway, MacAddress string
	IPPrefixLen                    int
}

type endpointView struct {
	IPAddress, Gateway, MacAddress string
	IPPrefixLen                    int
}

func inspectNetwork(c *manager.Container) networkSettingsView {
	v := networkSettingsView{Ports: map[string][]portView{}, Networks: map[string]endpointView{}}
	mode := manager.NetworkMode(c.HostConfig)
	var e endpointView
	if n := c.Network; n != nil {
		if p, err := netip.ParsePrefix(n.Address); err == nil {
			e = endpointView{IPAddress: p.Addr().String(), IPPrefixLen: p.Bits(), Gateway: n.Gateway, MacAddress: n.MAC}
		}
		v.Ports = portMap(n.Ports, false)
	}
	v.Networks[mode] = e
	v.IPAddress, v.Gateway, v.MacAddress, v.IPPrefixLen = e.IPAddress, e.Gateway, e.MacAddress, e.IPPrefixLen
	return v
}

// shownPorts is docker's PORTS column.
func shownPorts(c *manager.Container) string {
	if c.Network == nil {
		return ""
	}
	published := portMap(c.Network.Ports, false)
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
