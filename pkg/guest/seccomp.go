package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// filterSize is the size of one instruction of a filter.
const filterSize = int(unsafe.Sizeof(unix.SockFilter{}))

// forFilter adds the capability that the kernel demands for a filter without
// no-new-privileges. It is gone after the exec, which computes the permitted set
// anew out of the bounding set: so no call is needed for it behind the filter,
// which might forbid it.
func (s capSets) forFilter(f *api.Seccomp, noNewPrivileges bool) capSets {
	if f != nil && !noNewPrivileges {
		s.effective |= 1 << unix.CAP_SYS_ADMIN
		s.permitted |= 1 << unix.CAP_SYS_ADMIN
	}
	return s
}

// installFilter makes f count for this thread, which is the one that executes
// the command, and for all that comes out of it.
func installFilter(f *api.Seccomp) error {
	if f == nil {
		return nil
	}
	err := seccomp(f.Flags, f.Program)
	if errors.Is(err, unix.EINVAL) && f.Flags&unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW != 0 {
		// Linux < 4.17 has no such flag, nor what it asks to be left out.
		err = seccomp(f.Flags&^unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, f.Program)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the guest kernel takes no seccomp filter: %w (CONFIG_SECCOMP_FILTER; or --security-opt seccomp=unconfined)", err)
	}
	if err != nil {
		return fmt.Errorf("install the seccomp filter: %w", err)
	}
	return nil
}

func seccomp(flags uint32, program []byte) error {
	filter := make([]unix.SockFilter, len(program)/filterSize)
	for i := range filter {
		b := program[i*filterSize:]
		filter[i] = unix.SockFilter{Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
	}
	if len(filter) == 0 {
		return unix.EINVAL
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if e != 0 {
		return e
	}
	return nil
}
