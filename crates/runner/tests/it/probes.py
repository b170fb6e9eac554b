"""What a hostile job tries, one line each: `NAME contained` or `NAME BROKEN and how`.

Runs inside the sandbox. Arguments: `isolated` or `open`, the host folder that holds the server's data, the port of a
listener on the host's loopback, the name of an abstract socket on the host.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys

NETWORK, DATA, PORT, ABSTRACT = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
LIBC = ctypes.CDLL(None, use_errno=True)
INPUT = "/opt/ml/input"

# Numbers of system calls: x86-64, arm64.
NUMBERS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "unshare": (272, 97), "clone": (56, 220), "clone3": (435, 435),
    "setns": (308, 268), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224), "settimeofday": (164, 170),
    "sethostname": (170, 161), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "quotactl": (179, 60), "acct": (163, 89),
    "syslog": (103, 116), "capset": (126, 91), "kcmp": (312, 272), "pidfd_getfd": (438, 438), "vhangup": (153, 58),
}
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]

REFUSALS = {
    errno.EPERM, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ENOSYS, errno.ENXIO, errno.ENODEV, errno.ESRCH,
    errno.ENETUNREACH, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EXDEV,
    errno.EMFILE, errno.ENOTDIR,
}

# In a user namespace the ids of others do not exist: no number means them.
OTHER_IDS = {"become root", "become another user", "root's group", "files for root"}

PROBES = []


def probe(name, networks=("isolated", "open")):
    """Registers a function that raises OSError when it is refused, and returns what it got when it is not."""
    def register(function):
        if NETWORK in networks:
            PROBES.append((name, function))
        return function
    return register


def syscall(name, *arguments):
    # Every argument at full width, or the upper halves are what lay on the stack.
    wide = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name][COLUMN]), *wide)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return f"{name} returned {result}"


def call(name, *arguments, label=None):
    PROBES.append((label or name, lambda: syscall(name, *arguments)))


def read(path):
    PROBES.append((f"read {path}", lambda: open(path, "rb").read(1)))


def listing(path):
    PROBES.append((f"list {path}", lambda: os.listdir(path)))


def write(path):
    PROBES.append((f"write {path}", lambda: os.write(os.open(path, os.O_WRONLY), b"1")))


def create(path):
    PROBES.append((f"create {path}", lambda: os.open(path, os.O_WRONLY | os.O_CREAT)))


# The server, its data and other jobs.
for path in (DATA, f"{DATA}/workloads", f"{DATA}/logs", f"{DATA}/other", "/root", "/home", "/work", "/boot", "/srv", "/mnt",
             "/var/lib", "/var/log", "/sys/fs/cgroup", "/sys/kernel", "/proc/1/fd", "/proc/1/root/", "/proc/1/cwd/"):
    listing(path)
for path in ("/etc/shadow", "/etc/sudoers", f"{DATA}/other/secret", "/proc/1/environ", "/proc/1/mem", "/proc/1/maps",
             "/proc/1/root/etc/shadow", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/vda",
             "/dev/sda", "/dev/loop-control", "/dev/tty", "/proc/kmsg"):
    read(path)

# The system is not the job's to change.
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",
             "/proc/sys/vm/drop_caches", "/proc/1/oom_score_adj", "/etc/passwd", "/usr/bin/env", "/run/modelyard/exec",
             f"{INPUT}/part-1"):
    write(path)
for path in ("/new", "/usr/new", "/etc/new", "/bin/new", "/sys/new", "/opt/new", f"{INPUT}/new"):
    create(path)

# System calls that no training program needs.
PAGE = ctypes.create_string_buffer(4096)
call("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
call("mount", b"none", b"/usr", 0, 0x1000 | 0x20, 0, label="remount /usr writable")
call("umount2", b"/usr", 2)
call("pivot_root", b"/tmp", b"/tmp")
call("chroot", b"/tmp")
call("open_tree", -100, b"/usr", 1)
call("move_mount", -1, b"", -100, b"/tmp", 4)
call("fsopen", b"tmpfs", 0)
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("network", 0x40000000), ("pid", 0x20000000),
                   ("ipc", 0x8000000), ("uts", 0x4000000), ("cgroup", 0x2000000), ("time", 0x80)):
    call("unshare", flag, label=f"a {name} namespace of its own")
call("clone", 0x10000000 | 17, 0, 0, 0, 0, label="clone into a user namespace")
call("clone3", PAGE, 88)
call("setns", 0, 0)
call("ptrace", 16, 1, 0, 0, label="trace process 1")
call("ptrace", 0, 0, 0, 0, label="be traced")
call("process_vm_readv", 1, PAGE, 1, PAGE, 1, 0)
call("process_vm_writev", 1, PAGE, 1, PAGE, 1, 0)
call("kcmp", 1, os.getpid(), 0, 0, 0)
call("pidfd_getfd", 0, 0, 0)
call("bpf", 0, PAGE, 128)
call("perf_event_open", PAGE, 0, -1, -1, 0)
call("keyctl", 0, -3, 0)
call("add_key", b"user", b"probe", b"x", 1, -3)
call("request_key", b"user", b"probe", 0, -3)
call("init_module", PAGE, 4096, b"")
call("finit_module", 0, b"", 0)
call("delete_module", b"ext4", 0)
call("kexec_load", 0, 0, 0, 0)
call("reboot", 0xFEE1DEAD, 672274793, 0, 0)
call("swapon", b"/opt/ml/swap", 0)
call("settimeofday", PAGE, 0)
call("sethostname", b"probe", 5)
call("userfaultfd", 1)
call("io_uring_setup", 1, PAGE)
call("open_by_handle_at", 0, PAGE, 0)
call("fanotify_init", 0, 0)
call("quotactl", 0, 0, 0, 0)
call("acct", b"/tmp/acct")
call("syslog", 3, PAGE, 100)
call("vhangup")


@probe("a character device")
def character_device():
    os.mknod("/tmp/memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    return "made"


@probe("a block device")
def block_device():
    os.mknod("/opt/ml/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    return "made"


@probe("become root")
def become_root():
    os.setuid(0)
    return "done"


@probe("become another user")
def become_another_user():
    os.setresuid(1, 1, 1)
    return "done"


@probe("root's group")
def roots_group():
    os.setgid(0)
    return "done"


@probe("more groups")
def more_groups():
    os.setgroups([0])
    return "done"


@probe("capabilities")
def capabilities():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    everything = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    return syscall("capset", header, everything)


@probe("a program with the owner's rights")
def set_user_id_program():
    for name in ("/usr/bin/su", "/bin/mount", "/usr/bin/newgrp", "/usr/bin/passwd"):
        if os.path.exists(name):
            effective = subprocess.run(["sh", "-c", f"{name} --version >/dev/null 2>&1; id -u"], capture_output=True, text=True)
            if effective.stdout.strip() != str(os.getuid()):
                return effective.stdout
    os.chmod("/usr/bin/env", 0o4755)
    return "changed"


@probe("files for root")
def files_for_root():
    open("/tmp/mine", "w").close()
    os.chown("/tmp/mine", 0, 0)
    return "given"


@probe("signal process 1")
def signal_process_one():
    try:
        os.kill(1, signal.SIGKILL)
    except OSError:
        pass
    # It is the sandbox's own first process: killed, nothing here would go on.
    raise OSError(errno.EPERM, "alive")


@probe("processes of others")
def processes_of_others():
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if len(pids) <= 4 and max(pids) < 2_000:
        raise OSError(errno.ESRCH, "only our own")
    return pids


@probe("the supervisor's environment")
def environment():
    leaked = [name for name in os.environ if name.startswith(("CARGO", "RUST")) or "SECRET" in name]
    if not leaked:
        raise OSError(errno.ENOENT, "nothing")
    return leaked


@probe("open handles of the server")
def open_handles():
    handles = {int(name) for name in os.listdir("/proc/self/fd")}
    if handles <= {0, 1, 2, 3}:
        raise OSError(errno.ENOENT, "none")
    return sorted(handles)


@probe("shared temporary files")
def shared_temporary_files():
    found = set(os.listdir("/tmp")) - {"home", "mine", "probes.py"} | set(os.listdir("/dev/shm"))
    if not found:
        raise OSError(errno.ENOENT, "empty")
    return found


@probe("raise the limit of open files")
def raise_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from error
    return "raised"


@probe("thousands of open files")
def thousands_of_open_files():
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for handle in opened:
            os.close(handle)
    return len(opened)


@probe("go before others")
def priority():
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "raised"


@probe("real-time scheduling")
def real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "set"


@probe("escape from the out-of-memory choice")
def out_of_memory_choice():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "escaped"


@probe("a second name for a system file")
def hard_link():
    os.link("/usr/bin/env", "/opt/ml/env")
    return "made"


@probe("out through a link")
def out_through_a_link():
    os.symlink(f"{DATA}/other/secret", "/opt/ml/way-out")
    try:
        return open("/opt/ml/way-out").read()
    finally:
        os.unlink("/opt/ml/way-out")


@probe("out through parents")
def out_through_parents():
    return open("/opt/ml/" + "../" * 40 + DATA.lstrip("/") + "/other/secret").read()


@probe("core dumps")
def core_dumps():
    if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
        raise OSError(errno.EPERM, "none")
    return resource.getrlimit(resource.RLIMIT_CORE)


@probe("the container engine's socket")
def engine_socket():
    for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/systemd/private"):
        try:
            socket.socket(socket.AF_UNIX).connect(path)
        except OSError:
            continue
        return path
    raise OSError(errno.ENOENT, "none")


def kind_of_socket(name, family, kind=socket.SOCK_STREAM):
    PROBES.append((name, lambda: socket.socket(family, kind).fileno()))


kind_of_socket("packets of the wire", 17, socket.SOCK_RAW)
kind_of_socket("raw packets", socket.AF_INET, socket.SOCK_RAW)
kind_of_socket("the virtual machine's host", 40)
kind_of_socket("the kernel's ciphers", 38, socket.SOCK_SEQPACKET)
kind_of_socket("bluetooth", 31, socket.SOCK_RAW)


@probe("an abstract socket of the host")
def abstract_socket():
    socket.socket(socket.AF_UNIX).connect("\0" + ABSTRACT)
    return "connected"


def connection(address):
    def connect():
        # Without an answer this hangs; with a network of one's own there is nowhere to send to.
        socket.create_connection(address, 1)
        return "connected"
    return connect


probe("the metadata address", ["isolated"])(connection(("169.254.169.254", 80)))
probe("the host's loopback", ["isolated"])(connection(("127.0.0.1", PORT)))
probe("the internet", ["isolated"])(connection(("1.1.1.1", 443)))
probe("the internet of version 6", ["isolated"])(connection(("2606:4700::1111", 443)))


@probe("names of the internet", ["isolated"])
def names():
    try:
        return socket.getaddrinfo("example.com", 80)
    except socket.gaierror as error:
        raise OSError(errno.ENETUNREACH, str(error)) from error


@probe("interfaces of the host", ["isolated"])
def interfaces():
    found = {name for _, name in socket.if_nameindex()}
    if found == {"lo"}:
        raise OSError(errno.ENODEV, "loopback only")
    return found


for name, function in PROBES:
    try:
        got = function()
    except OSError as error:
        refused = error.errno in REFUSALS or (error.errno == errno.EINVAL and name in OTHER_IDS)
        print(f"{name} {'contained' if refused else f'BROKEN {error}'}", flush=True)
    else:
        print(f"{name} BROKEN {got!r}", flush=True)
