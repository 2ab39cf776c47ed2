package kvmhost

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/test/kvmhost/inside"
)

// parameters of modules. A VM's CPU that idles shall not spin: what it would
// spare is nothing, and the emulated CPU that it would take costs much.
func parameters() map[string]string { return map[string]string{"kvm": "halt_poll_ns=0"} }

// modules are what the machine needs: its own devices and root, KVM and what
// VMs and their networks use.
func modules() []string {
	return []string{
		"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "9p", "9pnet_virtio", "overlay", "ext4",
		"irqbypass", "ccp", "kvm", "kvm_amd", "tun", "tap", "vhost_net", "vhost_vsock",
		"erofs", "squashfs", "loop", "fuse", "veth", "bridge",
		"nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_ct", "nft_fib_inet", "nft_limit",
		"nft_log", "nft_reject_inet", "nft_compat", "nf_conntrack_netlink", "nft_meta_bridge", "br_netfilter",
		"xt_MASQUERADE", "xt_nat", "xt_conntrack", "xt_addrtype", "xt_comment", "xt_tcpudp", "xt_mark", "sch_ingress", "cls_bpf", "cls_u32", "act_mirred",
	}
}

// writeInitrd packs the modules, the configuration and this very program as
// /init.
func writeInitrd(path string, k *kernel.Kernel, init string, config inside.Config) error {
	mods, err := k.ModulesNamed(modules()...)
	if err != nil {
		return err
	}
	var entries []rootfs.InitEntry
	for i, m := range mods {
		info, err := os.Stat(m.Path)
		if err != nil {
			return err
		}
		size := info.Size()
		if filepath.Ext(m.Path) != ".ko" {
			if size, err = unpackedSize(m); err != nil {
				return err
			}
		}
		name := fmt.Sprintf("%03d-%s.ko", i, m.Name)
		config.Modules = append(config.Modules, inside.Module{File: name, Parameters: parameters()[m.Name]})
		entries = append(entries, rootfs.InitEntry{Name: "modules/" + name, Mode: 0o644, Size: size, Open: m.Open})
	}
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	info, err := os.Stat(init)
	if err != nil {
		return err
	}
	entries = append(entries,
		rootfs.InitEntry{Name: inside.ConfigFile, Mode: 0o644, Size: int64(len(b)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(b))), nil }},
		rootfs.InitEntry{Name: "init", Mode: 0o755, Size: info.Size(),
			Open: func() (io.ReadCloser, error) { return os.Open(init) }})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := rootfs.WriteInitramfs(f, entries); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func unpackedSize(m kernel.Module) (int64, error) {
	r, err := m.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// writeScratch makes the disk under the machine's /tmp. It takes no more room
// than what is written to it.
func writeScratch(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	mke2fs, err := lookTool("mke2fs")
	if err != nil {
		return err
	}
	out, err := exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make the scratch disk: %w: %s", err, out)
	}
	return nil
}

// lookTool also looks where an ordinary user's PATH does not lead.
func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (run scripts/test-setup.sh)", name)
}
