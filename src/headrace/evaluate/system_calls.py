"""A filter of system calls (seccomp, Linux): what a program under test may not ask of the kernel.

No process can be started, so that limits on memory and time of one process are limits on the program; no socket opened;
nothing of another process read; no namespace, mount or kernel facility touched. Threads are allowed.

The filter is a program of the kernel's packet filter language, see seccomp(2). It needs no privilege.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

# Numbers on x86-64 and on arm64; None: there is no such call. From 424 on they are the same everywhere.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "setsid": (112, 157), "setpgid": (109, 154),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "personality": (135, 92),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "syslog": (103, 116),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}  # column, AUDIT_ARCH_*, clone

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF opcodes
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE3, _CLONE_THREAD, _X32 = 435, 0x00010000, 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


def available() -> bool:
    """Whether this kernel and processor have such filters."""
    return os.path.exists("/proc/sys/kernel/seccomp") and platform.machine() in _ARCHITECTURES


def _instructions(machine: str) -> Iterator[tuple[int, int, int, int]]:
    """(opcode, jump if true, jump if false, operand)."""
    column, architecture, clone = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)  # otherwise the numbers mean other calls
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER)
    yield (_AT_LEAST, 0, 1, _X32)
    yield (_RETURN, 0, 0, _KILL)
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            yield (_EQUAL, 0, 1, number)
            yield refuse
    # Its flags are in memory, out of the filter's sight; the C library then uses clone.
    yield (_EQUAL, 0, 1, _CLONE3)
    yield (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    yield (_EQUAL, 0, 3, clone)
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield (_ANY_BIT, 1, 0, _CLONE_THREAD)
    yield refuse
    yield (_RETURN, 0, 0, _ALLOW)


def refuse_system_calls() -> None:
    """Put this process, and whatever it becomes, under the filter; there is no way back.

    Raises:
        OSError: the kernel has no such filters.
    """
    code = b"".join(struct.pack("HBBI", *one) for one in _instructions(platform.machine()))
    text = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    calls = ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(filter_program)))
    for option, value, more in calls:
        if libc.prctl(option, ctypes.c_ulong(value), more, 0, 0):
            raise OSError(ctypes.get_errno(), "the kernel refuses a filter of system calls")
