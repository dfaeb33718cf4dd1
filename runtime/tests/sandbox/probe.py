"""Tries what a worker has no business with, and writes a table of what came of it.

Each action runs in a process of its own, so that none of them sees what another has done.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
ACTIONS = []


def call(x86, generic, *arguments):
    """A system call by its number, which differs between processors."""
    LIBC.syscall.restype = ctypes.c_long
    given = LIBC.syscall(ctypes.c_long(x86 if X86 else generic), *map(ctypes.c_long, arguments))
    if given == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return given


def action(name):
    def add(function):
        ACTIONS.append((name, function))
        return function

    return add


def opens(path, mode="rb"):
    with open(path, mode):
        pass


# === files


@action("read a file of the system")
def _(facts):
    opens("/etc/passwd")


@action("root: read /etc/shadow")
def _(facts):
    opens("/etc/shadow")


@action("list the root folder")
def _(facts):
    os.listdir("/")


@action("see that a user's file exists")
def _(facts):
    os.stat(facts["key"])


@action("read a user's private key")
def _(facts):
    opens(facts["key"])


@action("list a user's home")
def _(facts):
    os.listdir(facts["outside"])


@action("write beside it")
def _(facts):
    opens(facts["outside"] + "/new", "wb")


@action("truncate a user's file by name")
def _(facts):
    os.truncate(facts["key"], 1)


@action("delete a user's file")
def _(facts):
    os.unlink(facts["key"])


@action("link a user's file into the own folder")
def _(facts):
    os.link(facts["key"], "linked")


@action("read a granted file")
def _(facts):
    opens(facts["read"] + "/file")


@action("write a file granted for reading")
def _(facts):
    opens(facts["read"] + "/file", "r+b")


@action("write in a granted folder")
def _(facts):
    opens(facts["write"] + "/new", "wb")


@action("write in the own folder")
def _(facts):
    opens("mine", "wb")


@action("write in shared memory")
def _(facts):
    name = f"/dev/shm/probe-{os.getpid()}"
    opens(name, "wb")
    os.unlink(name)


@action("write to /dev/null")
def _(facts):
    opens("/dev/null", "wb")


@action("root: write in /etc")
def _(facts):
    opens("/etc/passwd", "r+b")


@action("root: change the standard library")
def _(facts):
    opens(os.__file__, "r+b")


@action("kernel: open the memory of the machine")
def _(facts):
    try:
        opens("/dev/mem")
    except FileNotFoundError:
        raise PermissionError(errno.EACCES, "") from None


@action("root: make a device")
def _(facts):
    os.mknod("device", 0o600 | 0o020000, os.makedev(1, 3))


@action("root: open a file by handle")
def _(facts):
    handle = (ctypes.c_uint * 4)(8, 1, 0, 0)
    try:
        call(304, 265, os.open(".", os.O_RDONLY), ctypes.addressof(handle), 0)
    except OSError as error:
        if error.errno not in (errno.ESTALE, errno.EINVAL, errno.EOPNOTSUPP):
            raise


@action("be told of changes to the own folder")
def _(facts):
    watch = LIBC.inotify_init()
    assert LIBC.inotify_add_watch(watch, b".", 2) >= 0


# === the network


@action("connect by TCP")
def _(facts):
    socket.create_connection(("127.0.0.1", facts["tcp"]), timeout=5).close()


@action("listen on TCP")
def _(facts):
    socket.create_server(("127.0.0.1", 0)).close()


@action("send by UDP")
def _(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", facts["udp"]))


@action("make a socket for IPv6")
def _(facts):
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()


@action("make a socket to the kernel's network")
def _(facts):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


@action("root: make a raw socket")
def _(facts):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@action("root: make a socket for packets")
def _(facts):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


@action("make a pair of sockets")
def _(facts):
    for one in socket.socketpair():
        one.close()


@action("listen on a socket in the own folder and connect")
def _(facts):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("listening")
        server.listen()
        client.connect("listening")


@action("landlock 6: connect to an abstract socket of the host")
def _(facts):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + facts["abstract"])


@action("landlock <9: connect to a socket file of the host")
def _(facts):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(facts["unix"])


# === other processes


@action("landlock 6: signal the host")
def _(facts):
    os.kill(facts["host"], 0)


@action("signal an own process")
def _(facts):
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@action("read the command line of the host")
def _(facts):
    opens(f"/proc/{facts['host']}/cmdline")


@action("root: read the environment of the host")
def _(facts):
    with open(f"/proc/{facts['host']}/environ", "rb") as file:
        file.read(1)


@action("root: open the memory of the host")
def _(facts):
    opens(f"/proc/{facts['host']}/mem")


@action("root: read the memory of the host")
def _(facts):
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    here = ctypes.addressof(vector)
    try:
        call(310, 270, facts["host"], here, 1, here, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # nothing is there, but one may look
            raise


@action("root: trace the host")
def _(facts):
    seize, detach = 0x4206, 17
    call(101, 117, seize, facts["host"], 0, 0)
    LIBC.ptrace(detach, facts["host"], 0, 0)


@action("be traced")
def _(facts):
    call(101, 117, 0, 0, 0, 0)


@action("root: become another user")
def _(facts):
    os.setuid(65534)


@action("choose processors")
def _(facts):
    os.sched_setaffinity(0, os.sched_getaffinity(0))


@action("run a program from the own folder")
def _(facts):
    with open("program", "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    os.chmod("program", 0o700)
    assert os.spawnl(os.P_WAIT, "program", "program") == 0


@action("run a program from memory")
def _(facts):
    program = os.memfd_create("program", 0)
    with open("/bin/true", "rb") as file:
        os.write(program, file.read())
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.execve(program, ["true"], {})
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


# === the kernel


@action("root: mount")
def _(facts):
    os.mkdir("mounted")
    if LIBC.mount(b"none", b"mounted", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "")
    LIBC.umount(b"mounted")


@action("root: mount in a namespace of its own")
def _(facts):
    call(272, 97, 0x00020000)


@action("root: change the root folder")
def _(facts):
    os.chroot(".")


@action("kernel: make a user namespace")
def _(facts):
    call(272, 97, 0x10000000)


@action("kernel: make a process in a user namespace")
def _(facts):
    child = call(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@action("kernel: make a process by clone3")
def _(facts):
    call(435, 435, 0, 0)


@action("kernel: join a namespace")
def _(facts):
    call(308, 268, os.open("/proc/self/ns/uts", os.O_RDONLY), 0)


@action("kernel: load a program into the kernel")
def _(facts):
    call(321, 280, 0, 0, 0)


@action("kernel: measure performance")
def _(facts):
    attributes = (ctypes.c_uint * 32)(1, 128)
    call(298, 241, ctypes.addressof(attributes), 0, -1, -1, 0)


@action("kernel: handle page faults")
def _(facts):
    call(323, 282, 1)


@action("kernel: use io_uring")
def _(facts):
    parameters = (ctypes.c_uint * 64)()
    call(425, 425, 1, ctypes.addressof(parameters))


@action("kernel: use keys")
def _(facts):
    call(250, 219, 0, -3, 0)


@action("kernel: load a module")
def _(facts):
    call(313, 273, -1, 0, 0)


@action("kernel: switch off address randomisation")
def _(facts):
    call(135, 92, 0x0040000)


@action("ask for the personality")
def _(facts):
    call(135, 92, 0xFFFFFFFF)


@action("kernel: type into a terminal")
def _(facts):
    with open("/dev/null") as file:
        try:
            fcntl.ioctl(file, 0x5412, b"x")
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise


# === limits


@action("write a file of more than 64 GiB")
def _(facts):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("huge", "wb") as file:
        file.seek(64 << 30)
        file.write(b"x")
    os.unlink("huge")


@action("root: raise a limit")
def _(facts):
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard + 1 if hard >= 0 else hard))


@action("kernel: leave a core dump")
def _(facts):
    resource.setrlimit(resource.RLIMIT_CORE, (1, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@action("gain privileges from a program")
def _(facts):
    if LIBC.prctl(39, 0, 0, 0, 0):
        raise PermissionError(errno.EPERM, "")


def tried(function, facts):
    """What comes of an action, in a word."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            function(facts)
            word = "allowed"
        except OSError as error:
            word = errno.errorcode.get(error.errno, "OSError")
        except BaseException as error:
            word = type(error).__name__
        os.write(writing, word.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        word = file.read()
    os.waitpid(child, 0)
    return word or "killed"


def main(descriptor, view):
    with open("facts") as file:
        facts = json.load(file)
    if "allocate" in facts:
        words = tried(lambda facts: bytearray(facts["allocate"]), facts) + "\n"
    else:
        # A file that an action takes away is there again for the next one.
        words = ""
        for name, function in ACTIONS:
            words += f"{name}\t{tried(function, facts)}\n"
            with contextlib.suppress(OSError), open(facts["key"], "w") as file:
                file.write("secret")
    with open("result", "w") as file:
        file.write(words)
