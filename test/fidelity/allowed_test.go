package fidelity

import "slices"

// kind is why a difference is right.
type kind string

const (
	kernel  kind = "kernel"
	cgroups kind = "cgroup"
	vm      kind = "VM"
	older   kind = "older"
	storage kind = "storage"
	machine kind = "machine"
	missing kind = "not yet"
	choice  kind = "choice"
)

type kindMeaning struct {
	kind    kind
	meaning string
}

func kinds() []kindMeaning {
	return []kindMeaning{
		{kernel, "the guest has a kernel of its own"},
		{cgroups, "the machine of the reference has cgroup v1, guests have v2"},
		{vm, "what a VM is, and docker's container is not"},
		{older, "the reference is an older engine: MicroPod does what version 28 does"},
		{storage, "where the reference keeps its files"},
		{machine, "how the reference has to be set up on its machine"},
		{missing, "MicroPod does not have it"},
		{choice, "MicroPod is meant to differ"},
	}
}

// newest is the docker that MicroPod follows.
const newest = 28

// allowance is a difference that is right. All but kind and why are patterns of
// the whole text; an empty one matches anything.
type allowance struct {
	in       string // rows; an allowance that names them must be needed in each
	fact     string
	ref, our string
	kind     kind
	maybe    bool // not needed in every run or on every machine
	why      string
}

// absentPattern matches absent.
const absentPattern = `\(absent\)`

func (a allowance) allows(row string, d difference) bool {
	return matches(a.in, row) && matches(a.fact, d.fact) && matches(a.ref, d.ref) && matches(a.our, d.our)
}

// anyStep matches the name of a step before a fact.
const anyStep = `(.*: )?`

func allowances() []allowance {
	const p = anyStep
	return slices.Concat(kernelAllowances(p), olderAllowances(p), otherAllowances(p))
}

// kernelAllowances are about what a kernel has, or is.
func kernelAllowances(p string) []allowance {
	return []allowance{
		{fact: p + `path:/proc/.*`, ref: "absent", our: "masked|read-only|open", kind: kernel, why: "the reference's kernel does not have it"},
		{fact: p + `path:/(proc|sys)/.*`, ref: "masked|read-only|open", our: "absent", kind: kernel, maybe: true, why: "the guest's kernel does not have it"},
		{fact: p + `dev:/dev/core`, ref: absentPattern, our: `link 0777 0:0 to /proc/kcore`, kind: kernel, why: "the reference's kernel has no /proc/kcore to link to"},
		{fact: p + `call:(delete_module|finit_module|ioperm|kexec_load)`, ref: "ENOSYS", our: "EPERM|EINVAL|EFAULT|EBADF", kind: kernel, why: "the reference's kernel does not have the call"},
		{fact: p + `call:open_by_handle_at`, ref: "EFAULT", our: "EPERM", kind: kernel, why: "newer kernels look at the arguments first"},
		{fact: p + `call:syslog`, ref: "EPERM", our: "ok", kind: kernel, why: "in newer kernels CAP_SYS_ADMIN does not stand for CAP_SYSLOG"},
		{fact: p + `limit:(processes|pending signals)`, kind: kernel, why: "the kernel's default follows the amount of memory"},
		{fact: p + `try:write /sys`, ref: "EROFS", our: "EACCES", kind: kernel, why: "docker's sysfs belongs to the container's network namespace and is read-only itself, the guest's is where it is mounted: both refuse"},
		{fact: p + `cgroup:cpuset\.cpus`, ref: `\d.*`, our: "", kind: cgroups, why: "v1 has no empty set"},
		{fact: p + `mount:/sys/fs/cgroup\..*`, kind: cgroups, why: "v1 has a tmpfs with a mount for each controller"},
	}
}

// olderAllowances are about what newer engines do otherwise.
func olderAllowances(p string) []allowance {
	return []allowance{
		{fact: p + `path:/proc/interrupts`, ref: "open", our: "masked", kind: older, why: "newer engines mask it"},
		{in: "inspect: HostConfig.MaskedPaths", fact: p + "stdout", kind: older, why: "newer engines mask more, and sort the list"},
		{fact: p + `call:io_uring_setup`, ref: "EFAULT|EINVAL|ENOSYS", our: "EPERM", kind: older, why: "newer profiles forbid io_uring"},
		{fact: p + `call:(name_to_handle_at|process_vm_readv)`, ref: "EPERM", our: "EFAULT|ok", kind: older, why: "newer profiles allow it"},
		{fact: p + `socket:(vsock|alg)`, our: "EPERM", kind: older, why: "newer profiles forbid the socket family"},
		{fact: p + `file:/etc/hosts`, ref: `.*fe00::0\t.*ff00::0\t.*`, our: `.*fe00::\t.*ff00::\t.*`, kind: older, why: "newer engines write fe00:: and ff00::"},
		{fact: `walk:/etc/hosts\.content`, ref: "1.. bytes.*", our: "1.. bytes.*", kind: older, why: "the same in a file"},
		{in: "exec -u, group of digits", fact: p + "(groups|gid)", ref: "44.*", our: "4321.*", kind: older, why: "in newer engines digits are always an id"},
		{in: "exec -w, missing", fact: p + "exit", ref: "126", our: "127", kind: older, why: "newer engines have 127"},
		{in: "exec: command that does not exist", fact: p + "exit", ref: "126", our: "127", kind: older, why: "newer engines have 127"},
		{in: "command that is no program|command without its interpreter|exec: command that is no program", fact: p + "exit", ref: "1", our: "255", kind: older, why: "newer runtimes have 255"},
		{in: "exec -u over the container's", fact: p + `cap\.(effective|permitted)`, ref: "0+", our: "00000000a80425fb", kind: older, why: "newer engines give an exec the capabilities of the container, not of its user"},
		{in: "WORKDIR through a link", fact: "cwd", ref: "/srv/x", our: "/opt/deep/x", kind: older, why: "newer engines follow the link before the dots"},
		{in: "files: mount points and the root directory", fact: "walk:/", ref: "dir 0700 1000:1000", our: "dir 0755 0:0", kind: older, why: "in newer engines the root directory is root's, whatever a layer says"},
		{in: "files: parents that no layer names", fact: "walk:.*", ref: "dir 0600 0:0", our: "dir 0755 0:0", kind: older, why: "newer engines make them 0755"},
		{fact: p + "limit:open files", ref: `\d+:\d+`, our: "200:300|1024:524288", kind: older, maybe: true, why: "older runtimes now and then leave an exec the soft limit of their own"},
	}
}

// otherAllowances are about what a VM is, how the reference was set up, and what
// is not there yet.
func otherAllowances(p string) []allowance {
	return []allowance{
		{in: "run -m", fact: "cgroup:memory.max", ref: "268435456", our: "max", kind: vm, why: "the limit is the size of the VM"},
		{fact: p + "socket:vsock", ref: "ok", our: "EAFNOSUPPORT", kind: vm, maybe: true, why: "a guest has it only where the VMM does"},
		{in: "run --init", fact: "ancestors", ref: "docker-init", our: "micropod-init", kind: vm, why: "the guest's agent is the init"},
		{fact: p + `mount:/(usr/)?sbin/docker-init\..*`, our: absentPattern, kind: vm, why: "the guest's agent is the init, no program is put into the container"},
		{fact: `walk:/\.dockerenv.*`, our: absentPattern, kind: vm, why: "the file says that this is docker"},
		{in: "run --privileged", fact: "dev:/dev/.*", kind: vm, why: "the devices are the guest's"},
		{fact: p + `mount:/\.(type|propagation)`, kind: storage, why: "the reference's driver copies files into a directory of its machine"},
		{fact: p + `mount:/etc/(hosts|hostname|resolv\.conf)\.(type|options)`, our: `tmpfs|mode=755`, kind: storage, why: "the reference keeps these files in a directory of its machine"},
		{fact: `walk:/opt/.*\.xattrs`, ref: "", our: "user.*", kind: storage, why: "the reference's driver loses user.* attributes; package rootfs is compared with umoci there"},
		{fact: `walk:/opt/odd/(hard-link-to-link|timed-link)`, ref: ".* links 1", our: ".* links 2 same as .*", kind: storage, why: "the reference's driver copies a link that has two names twice"},
		{fact: `walk:/((dev|proc|sys|etc|etc/(hosts|hostname|resolv\.conf|mtab))?|opt/implied(/parent|/parent/of)?)\.time`, kind: storage, why: "made when the container starts or the image is unpacked"},
		{fact: p + `file:/etc/resolv\.conf`, ref: `.*nameserver .*`, our: "", kind: missing, why: "docker copies its machine's, a guest has no network that leads there"},
		{fact: `walk:/etc/resolv\.conf\.content`, our: "0 bytes.*", kind: missing, why: "the same in a file"},
		{in: "VOLUME with content", fact: `walk:/data\.time`, kind: missing, why: "there are no volumes yet: the directory is the image's own"},
		{in: "refused: two mounts at one place", fact: p + "exit", ref: "0", our: "125", kind: choice, why: "one of two mounts at one place would be hidden: that is refused"},
		{in: "exec -u, (unknown name|negative UID|UID that is too large)|exec -w, missing|exec: command that (does not exist|is not executable|is a directory)", fact: p + "stdout", ref: "(OCI runtime exec failed|unable to find user|uids and gids).*", our: "", kind: choice, why: "docker writes what an exec failed of to its stdout, MicroPod to stderr"},
		{fact: p + `limit:open files`, ref: `1024:\d+`, our: `1024:524288`, kind: machine, maybe: true, why: "docker's hard limit is that of its machine, if that is lower"},
		{fact: p + `cap\..*`, ref: "[0-9a-f]*e[0-9a-f]*", our: "[0-9a-f]+", kind: machine, maybe: true, why: "root of the reference's machine has no CAP_SYS_RESOURCE, so that nobody gets it"},
		{fact: p + "try:raise nofile", ref: "EPERM", our: "ok", kind: machine, maybe: true, why: "that needs CAP_SYS_RESOURCE"},
		{in: "inspect: HostConfig.Ulimits", fact: p + "stdout", ref: `.*"nofile".*`, our: "\\[\\]\n", kind: machine, why: "the test has to tell the reference its default limit"},
	}
}
