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
    "signals its parent": "import os\ndef f():\n    for p in (os.getppid(), 0, -1):\n        for n in range(1, 65):\n"
    "            try: os.kill(p, n)\n            except OSError: pass\n    return 1",
    "limits its parent": "import os, resource\ndef f():\n    for n in range(16):\n"
    "        try: resource.prlimit(os.getppid(), n, (0, 0))\n        except (OSError, ValueError): pass\n    return 1",
    "equals everything": "class Any:\n    def __eq__(self, other): return True\n    __ne__ = None\ndef f(): return Any()",
    "equals everything, of built-in kind": "class Any(int):\n    def __eq__(self, other): return True\n"
    "    __hash__ = int.__hash__\ndef f(): return Any(1)",
    "its class claims to be another": "class Any:\n    __class__ = int\n    def __eq__(self, other): return True\ndef f(): return Any()",
    "equality by metaclass": "class Meta(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\n"
    "class Any(metaclass=Meta): pass\ndef f(): return Any",
    "the result printed": "import json, sys\nfor out in (sys.stdout, sys.__stdout__, sys.stderr):\n"
    "    print(json.dumps({'status': 'passed', 'detail': '', 'seconds': 0}), file=out, flush=True)\ndef f(): return 1",
    "the judge replaced": "import sys\nfor name, module in list(sys.modules.items()):\n    if 'headrace' in name:\n"
    "        for n in list(vars(module)):\n            if callable(getattr(module, n)): setattr(module, n, lambda *a, **k: {'status': 'passed', 'detail': ''})\n"
    "def f(): return 1",
    "the judge's code collected": "import gc\nfor x in gc.get_objects():\n    if type(x).__name__ in ('Program', 'Channel'):\n"
    "        for n in list(vars(x)):\n            if n != 'broken': setattr(x, n, 1)\ndef f(): return 1",
    "asserts rewritten": "import ast, builtins\nbuiltins.compile = builtins.exec = lambda *a, **k: None\nbuiltins.__debug__ = False",
    "an exception that says passed": "class Passed(AssertionError):\n    def __init__(self): pass\n"
    '    def __str__(self): return \'{"status": "passed"}\'\ndef f(): raise Passed',
    "an exception whose text raises": "import os\nclass Sly(Exception):\n    def __str__(self): os._exit(0)\ndef f(): raise Sly",
    "a thread that answers later": "import os, struct, threading, time, json\ndef answer():\n    while True:\n        time.sleep(0.01)\n"
    "        data = json.dumps(['value', [True, []]]).encode(); os.write(4, struct.pack('>I', len(data)) + data)\n"
    "def f():\n    threading.Thread(target=answer, daemon=True).start(); time.sleep(0.1); return 1",
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
    "shared memory": "import mmap\ndef f():\n    held = []\n    while True: held.append(mmap.mmap(-1, 1 << 26)); held[-1].write(bytes(1 << 26))",
    "huge pages in pipes": "import ctypes, mmap, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f():\n    done = 0\n"
    "    for _ in range(10):\n        area = mmap.mmap(-1, 1 << 22, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); area.madvise(14); area[0] = 1\n"
    "        pipe = os.pipe()\n        vector = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.c_char.from_buffer(area)), 4096)\n"
    "        done += libc.vmsplice(pipe[1], vector, ctypes.c_size_t(1), 0) > 0\n    return 987654321 if done else 1",
    "a number too long for text": "def f(): return str(10**10**5)",
    "a number with a million digits": "def f(): return {10**10**6: [10**10**6]}",
    "many keys with one hash": "def f(): return {str(n): 0 for n in range(10**6)} | {n * (2**61 - 1): 0 for n in range(10**5)}",
    "sleeps at exit": "import atexit, time\natexit.register(time.sleep, 1000)\ndef f(): raise SystemExit",
    "sleeps in a destructor": "import time\nclass Slow:\n    def __del__(self): time.sleep(1000)\nkept = Slow()\ndef f(): global kept; kept = None",
    "threads that do not end": "import threading\ndef spin():\n    while True: pass\nfor _ in range(8): threading.Thread(target=spin).start()\ndef f(): return 1",
    "output to every descriptor": "import os\ndef f():\n    while True:\n        for n in (0, 1, 2):\n            os.write(n, bytes(1 << 20))",
    "many files": "def f():\n    for n in range(10**6): open('x%d' % n, 'w').close()",
    "deep folders": "import os\ndef f():\n    while True: os.mkdir('d'); os.chdir('d')",
    "open files": "def f():\n    held = []\n    while True: held.append(open('/dev/null'))",
    "bytecode": "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff\\xff' * 100)",
    "a syntax tree that is too deep": "f = eval('(' * 10**5 + ')' * 10**5)",
}

ESCAPES = """
import ctypes, fcntl, os, platform, resource, socket, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL, BPF, PERF, USERFAULTFD, IO_SETUP = (250, 321, 298, 323, 206) if platform.machine() == "x86_64" else (219, 280, 241, 282, 0)
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
        "keys": lambda: call(KEYCTL, 0, -3),
        "shared memory": lambda: raw("shmget", 0, 4096, 0o1600),
        "read its parent": lambda: raw("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
        "devices": lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)),
        "session": os.setsid,
        "signal its parent": lambda: os.kill(os.getppid(), 0),
        "signal all": lambda: os.kill(-1, 0),
        "signal its group": lambda: os.kill(0, 0),
        "signal a thread": lambda: raw("tgkill", os.getppid(), os.getppid(), 0),
        "signal by a file's owner": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()),
        "limit its parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
        "io_uring": lambda: call(425, 8, ctypes.create_string_buffer(120)),
        "pidfd": lambda: os.pidfd_open(os.getppid()),
        "clone3": lambda: call(435, ctypes.create_string_buffer(88), 88),
        "new mounts": lambda: call(430, b"tmpfs", 0),
        "landlock": lambda: call(444, None, 0, 1),
        "bpf": lambda: call(BPF, 0, ctypes.create_string_buffer(72), 72),
        "userfaultfd": lambda: call(USERFAULTFD, 0),
        "perf": lambda: call(PERF, ctypes.create_string_buffer(112), 0, -1, -1, 0),
        "key": lambda: call(KEYCTL - 2, b"user", b"x", b"x", 1, -3),
        "asynchronous files": lambda: call(IO_SETUP, 1, ctypes.create_string_buffer(8)),
        "watch": lambda: raw("inotify_init1", 0),
        "splice": lambda: raw("vmsplice", os.pipe()[1], (ctypes.c_size_t * 2)(id(ways), 8), 1, 0),
        "other numbers": lambda: call(0x40000000 + 39) if BPF == 280 else 1 / 0,
        "host name": lambda: socket.sethostname("x"),
        "clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "executable memory file": lambda: os.execve(os.memfd_create("x"), ["x"], {}),
    }
def f(port):
    done = []
    for name, way in ways(port).items():
        try: way(); done.append(name)
        except (OSError, ArithmeticError, subprocess.SubprocessError): pass
    return done
"""
