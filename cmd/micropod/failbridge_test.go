package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/test/networld"
)

// dyingInNetworks runs a container in a bridge network, and kills who comes to a
// point, for each NETWORK/POINT. What is left then is gone after the next commands, on
// the host too.
const dyingInNetworks = `
state() { ip -o link | cut -d: -f2; ip -o address | grep -v lan0; ip rule; nft list ruleset; }
micropod network create net
micropod network create extra
state >before
for what; do
	net=${what%/*} point=${what#*/}
	: >hits
	long=1
	case $point in *connect.*) long=1000 ;; esac
	MICROPOD_FAILPOINT_HITS=$PWD/hits MICROPOD_FAILPOINT=$point timeout 300 micropod run -d --name box --network $net -p 8080:80 "$IMAGE" sleep $long || true
	if test $long != 1; then
		micropod network connect extra box || true
		micropod network disconnect $net box || true
	fi
	i=0; until test -s hits; do test $((i+=1)) -lt 600 || { echo "nobody came to $what"; exit 1; }; sleep 0.5; done
	i=0; until micropod ps -a --filter name=box --format '{{.State}}' | grep -v running | grep -v starting || test -z "$(micropod ps -aq)"; do test $((i+=1)) -lt 600; sleep 0.5; done
	micropod rm -f box
	micropod system check --repair || true
	micropod system check
	state >after
	diff before after || { echo "left behind after $what"; exit 1; }
	test "$(micropod network inspect -f '{{len .Containers}}' $net)" = 0
	grep -q '"leases": \[\]' "$MICROPOD_ROOT/networks.json" || grep -q '"leases": null' "$MICROPOD_ROOT/networks.json"
done
`

// TestBridgeFailpoints kills supervisors at the points between a free address and a
// free network, in a world of its own. The network is made beside the VM's start: who
// dies at a point of one of them is anywhere in the other.
func TestBridgeFailpoints(t *testing.T) {
	kernel, images := os.Getenv("MICROPOD_TEST_KERNEL"), os.Getenv("MICROPOD_TEST_IMAGES")
	if kernel == "" || images == "" {
		t.Skip("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES do not name a guest kernel and an OCI layout (make test does)")
	}
	if os.Geteuid() != 0 {
		t.Skip("bridge networks need root")
	}
	bin := filepath.Join(t.TempDir(), "micropod")
	if out, err := exec.Command("go", "build", "-tags", "failpoint", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with fail points: %v\n%s", err, out)
	}
	image := startRegistry(t, images) + "/busybox:latest"
	root, err := newRoot(templateRoot(t, bin, kernel, strings.TrimSuffix(image, "/busybox:latest")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endRoot(t, bin, root) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	world := exec.Command(self, append([]string{"-lan", "sh", "-euc", dyingInNetworks, "sh"}, bridgePoints()...)...)
	world.Args[0] = networld.Name
	world.Dir = t.TempDir()
	world.Env = append(os.Environ(), "MICROPOD_ROOT="+root, "IMAGE="+image, "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"))
	if out, err := world.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func bridgePoints() []string {
	points := []string{
		"networks.written", "supervisor.recorded", "bridge.tables", "bridge.linked", "bridge.routed", "bridge.up",
		"supervisor.awaiting", "supervisor.vmm", "bridge.plugged", "supervisor.known", "supervisor.up",
		"supervisor.killed", "bridge.unrouted", "bridge.removed", "supervisor.freed", "supervisor.settled",
	}
	// The bridge of the default network is there before a supervisor is.
	reserved := []string{
		"bridge.linked", "bridge.routed", "bridge.up", "networks.written", "start.planned", "spawn.started", "supervisor.born",
		"bridge.tables", "supervisor.up", "bridge.unrouted", "bridge.removed",
	}
	points = append(points, "connect.recorded", "connect.linked", "connect.wired", "connect.told", "disconnect.recorded", "disconnect.left")
	var all []string
	for _, p := range points {
		all = append(all, "net/"+p)
	}
	for _, p := range reserved {
		all = append(all, "bridge/"+p)
	}
	return all
}
