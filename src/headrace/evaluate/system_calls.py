"""A filter of system calls (seccomp, Linux): what a program under test may not ask of the kernel.

No process can be started, so that limits on memory and time of one process are limits on the program; no other process
signalled, limited or read; no socket opened; no namespace, mount or kernel facility touched. Threads are allowed.

The filter is a program of the kernel's packet filter language, see seccomp(2). It needs no privilege.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence

# Numbers on x86-64 and on arm64; None: there is no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "setsid": (112, 157), "setpgid": (109, 154), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "mknod": (133, None),
    "mknodat": (259, 33),
    # Memory that no limit of the process counts: vmsplice pins a huge page for each page that stands in a pipe.
    "memfd_create": (319, 279), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "vmsplice": (278, 75), "io_setup": (206, 0), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "mbind": (237, 235), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "personality": (135, 92), "modify_ldt": (154, None),
    "iopl": (172, None), "ioperm": (173, None), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "syslog": (103, 116),
}  # fmt: skip
# From here on (Linux 5.1) numbers are the same everywhere. Programs must do without these calls, as older kernels have
# none of them: io_uring, pidfds, the new mounts, clone3 (whose flags a filter cannot see), and what will come.
_NEW = 424
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_KILL_PROCESS, _KILL_THREAD, _LIMIT, _CLONE, _CONTROL = (62, 129), (234, 131), (302, 261), (56, 220), (72, 25)
_OWNER_OF_SIGNALS = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX have the kernel signal any process

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF opcodes
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD, _X32 = 0x00010000, 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


def available() -> bool:
    """Whether this kernel and processor have such filters."""
    return os.path.exists("/proc/sys/kernel/seccomp") and platform.machine() in _ARCHITECTURES


def _instructions(machine: str, signalled: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """(opcode, jump if true, jump if false, operand)."""
    column, architecture = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)  # otherwise the numbers mean other calls
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER)
    yield (_AT_LEAST, 0, 1, _X32)
    yield (_RETURN, 0, 0, _KILL)
    yield (_AT_LEAST, 0, 1, _NEW)
    yield (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            yield (_EQUAL, 0, 1, number)
            yield refuse
    for call, argument, test, operands, allowed in (
        (_KILL_PROCESS, 0, _EQUAL, signalled, True),
        (_KILL_THREAD, 0, _EQUAL, signalled, True),
        (_LIMIT, 0, _EQUAL, (0,), True),  # of itself
        (_CLONE, 0, _ANY_BIT, (_CLONE_THREAD,), True),
        (_CONTROL, 1, _EQUAL, _OWNER_OF_SIGNALS, False),
    ):
        yield (_EQUAL, 0, 3 + len(operands), call[column])
        yield (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)  # its lower half
        for place, operand in enumerate(operands):
            yield (test, len(operands) - place, 0, operand)
        yield refuse if allowed else (_RETURN, 0, 0, _ALLOW)
        yield (_RETURN, 0, 0, _ALLOW) if allowed else refuse
    yield (_RETURN, 0, 0, _ALLOW)


def refuse_system_calls(signalled: Sequence[int]) -> None:
    """Put this process, and whatever it becomes, under the filter; there is no way back.

    Args:
        signalled: the processes that may be sent signals.

    Raises:
        OSError: the kernel has no such filters.
    """
    code = b"".join(struct.pack("HBBI", *one) for one in _instructions(platform.machine(), signalled))
    text = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    calls = ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(filter_program)))
    for option, value, more in calls:
        if libc.prctl(option, ctypes.c_ulong(value), more, 0, 0):
            raise OSError(ctypes.get_errno(), "the kernel refuses a filter of system calls")
