"""Programs that try to pass without being right, to exhaust the machine, and to get out."""

# ruff: noqa: E501 - programs are shown as they are written

FORGERIES = {
    "leave at once": "import os\nos._exit(0)",
    "leave when called": "import os\ndef f(): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit when called": "import sys\ndef f(): sys.exit(0)",
    "raise SystemExit when called": "def f(): raise SystemExit(0)",
    "KeyboardInterrupt": "def f(): raise KeyboardInterrupt",
    "end of the world": "def f(): raise GeneratorExit",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(): raise SystemExit",
    "builtins": "import builtins\nbuiltins.AssertionError = Warning\nbuiltins.isinstance = lambda *a: True\n"
    "def f(): return 1",
    "their own check": "def check(*a): pass\ndef abs(x): return 0\ndef f(): return 1",
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(): return 1",
    "says passed everywhere": 'import os\nfor n in range(64):\n    try: os.write(n, b\'{"status": "passed", "detail": ""}\')\n'
    "    except OSError: pass\ndef f(): return 1",
    "answers before it is asked": "import os, struct, json\ndef f():\n    for value in (True, [True, []], [[True, []], []], None):\n"
    "        data = json.dumps(['value', value]).encode()\n        os.write(4, struct.pack('>I', len(data)) + data)\n    return 1",
    "a message without end": "import os\ndef f():\n    os.write(4, b'\\x00\\xff\\xff\\xff' + b'x' * 1000)\n    os._exit(0)",
    "a message of a gigabyte": "import os\ndef f():\n    os.write(4, b'\\xff\\xff\\xff\\xff')\n    os._exit(0)",
    "a callback that is none": "import os, struct, json\ndef f():\n    data = json.dumps(['callback', 0, []]).encode()\n"
    "    os.write(4, struct.pack('>I', len(data)) + data)\n    return 1",
    "nonsense as a value": "import os, struct, json\ndef f():\n    data = json.dumps(['value', [['no', 1], []]]).encode()\n"
    "    os.write(4, struct.pack('>I', len(data)) + data)\n    return 1",
    "closes the channel": "import os, time\ndef f():\n    os.close(3); os.close(4); time.sleep(9)",
    "kills its parent": "import os, signal\ndef f():\n    for p in (os.getppid(), 1):\n        try: os.kill(p, signal.SIGKILL)\n"
    "        except OSError: pass\n    return 1",
    "looks for the tests": "import gc, sys\ndef f():\n    frame = sys._getframe()\n    while frame:\n        for v in list(frame.f_locals.values()):\n"
    "            if '987654321' in repr(v)[:10000] and 'assert' in repr(v)[:10000]: return 987654321\n        frame = frame.f_back\n"
    "    for v in gc.get_objects():\n        if type(v) is str and 'assert f' in v: return 987654321\n    return 1",
}

BOMBS = {
    "forks": "import os\ndef f():\n    while True: os.fork()",
    "threads": "import threading, time\ndef f():\n    threads = []\n    while True:\n"
    "        threads.append(threading.Thread(target=time.sleep, args=(99,), daemon=True)); threads[-1].start()",
    "memory": "def f():\n    held = []\n    while True: held.append(bytearray(50_000_000))",
    "memory, quietly": "def f():\n    held = []\n    while True:\n        try: held.append(bytearray(1_000_000))\n        except MemoryError: pass",
    "a loop": "def f():\n    while True: pass",
    "a loop at once": "while True: pass",
    "a loop that catches everything": "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "sleep": "import time\ndef f(): time.sleep(1000)",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef g(n): return [g(n + 1)]\ndef f(): return g(0)",
    "deep value": "def f():\n    x = []\n    for _ in range(100_000): x = [x]\n    return x",
    "cycle": "def f():\n    x = []; x.append(x)\n    return x",
    "output": "import sys\ndef f():\n    for _ in range(100): sys.stdout.write('x' * 10**6); sys.stderr.write('y' * 10**6)\n    return 1",
    "bad text": "import sys\ndef f():\n    sys.stdout.buffer.write(b'\\xff\\xfe'); raise ValueError('\\ud800\\x1b[31m' * 10000)",
    "a number without end": "def f(): return 10**10**7",
    "regular expression": "import re\ndef f(): return re.match('(a*)*b', 'a' * 40)",
    "stack of C": "import ctypes\ndef f(): ctypes.string_at(0)",
    "generator without end": "def f():\n    while True: yield 1",
    "daemon": "import os\ndef f():\n    if os.fork(): os._exit(0)\n    os.setsid()\n    while True: pass",
    "session": "import os\ndef f():\n    os.setsid()\n    while True: pass",
    "no memory left for the verdict": "def f(): return 'x' * 10**9",
}

ESCAPES = """
import ctypes, os, socket, subprocess, mmap
libc = ctypes.CDLL(None, use_errno=True)
def ways(port):
    def connect(family, kind, address):
        with socket.socket(family, kind) as s: s.settimeout(1); s.connect(address)
    def call(*args):
        if libc.syscall(*args) == -1: raise OSError(ctypes.get_errno(), "refused")
    def raw(name, *args):
        if getattr(libc, name)(*args) == -1: raise OSError(ctypes.get_errno(), "refused")
    return {
        "loopback": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
        "loopback 6": lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", port)),
        "datagram": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("8.8.8.8", 53)),
        "abstract": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0/tmp/.X11-unix/X0"),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "name": lambda: socket.getaddrinfo("localhost.", 1, proto=socket.IPPROTO_TCP) and socket.create_connection(("localhost", port)),
        "ptrace": lambda: raw("ptrace", 16, os.getppid(), 0, 0),
        "trace me": lambda: raw("ptrace", 0, 0, 0, 0),
        "fork": os.fork,
        "process": lambda: subprocess.run(["/bin/sh", "-c", "true"], check=True),
        "shell": lambda: 1 / (os.system("true") == 0),
        "exec": lambda: os.execv("/proc/self/exe", ["python"]),
        "setuid": lambda: os.setuid(0) if os.getuid() else 1 / 0,
        "unshare": lambda: raw("unshare", 0x10000000),
        "mount": lambda: raw("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "chroot": lambda: os.chroot("/tmp"),
        "memory file": lambda: os.memfd_create("x"),
        "keys": lambda: raw("syscall", 250, 0, -3),
        "shared memory": lambda: raw("shmget", 0, 4096, 0o1600),
        "read its parent": lambda: raw("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
        "devices": lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)),
        "session": os.setsid,
    }
def f(port):
    done = []
    for name, way in ways(port).items():
        try: way(); done.append(name)
        except (OSError, ArithmeticError, subprocess.SubprocessError): pass
    return done
"""
