"""Runs a service executable in a root file system that holds glibc and nothing else.

    python tests/bare_root.py EXECUTABLE BODY...

No Python, no shell and no network but loopback is in there. Prints how long the service took until it
was ready, at its first start and at its second, on standard error, and the answer to each body. Needs
user namespaces (`unshare`), and no privileges.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

# An empty folder that every system has; what is mounted there is seen by this process alone.
ROOT = Path("/mnt")
PORT = 8081
GLIBC = "libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libresolv.so.2"
LOADERS = "/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"


def main(executable, *bodies):
    make_root(Path(executable))
    set_loopback_up()
    for start in ("first", "second"):
        began = time.monotonic()
        service = enter()
        try:
            wait_until_ready(service)
            print(f"{start} start: {time.monotonic() - began:.2f} s", file=sys.stderr)
            answers = [post(body) for body in bodies]
        finally:
            service.terminate()
            service.wait()
    print("\n".join(answers))


def make_root(executable):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", ROOT], check=True)
    for folder in ("dev", "proc", "tmp", "lib64"):
        (ROOT / folder).mkdir()
    loader = next(path for path in map(Path, LOADERS) if path.exists())
    here = Path(os.path.realpath(loader)).parent
    shutil.copy(loader, ROOT / loader.relative_to("/"))
    libraries = ROOT / here.relative_to("/")
    libraries.mkdir(parents=True, exist_ok=True)
    for name in GLIBC.split():
        shutil.copy(here / name, libraries)
    (ROOT / "dev/null").touch()
    subprocess.run(["mount", "--bind", "/dev/null", ROOT / "dev/null"], check=True)
    subprocess.run(["mount", "-t", "proc", "none", ROOT / "proc"], check=True)
    shutil.copy(executable, ROOT / "svc")


def set_loopback_up():
    get_flags, set_flags, is_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(channel, get_flags, request))[1]
        fcntl.ioctl(channel, set_flags, struct.pack("16sh14x", b"lo", flags | is_up))


def enter():
    command = [shutil.which("chroot"), ROOT, "/svc", "--port", str(PORT), "--workers", "1"]
    return subprocess.Popen(command, env={})


def wait_until_ready(service):
    while service.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.01)
    sys.exit(f"the service ended with {service.returncode}")


def post(body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/predict", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode().strip()


if __name__ == "__main__":
    if sys.argv[1] != "--inside":
        alone = ["unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        os.execvp("unshare", [*alone, sys.executable, __file__, "--inside", *sys.argv[1:]])
    main(*sys.argv[2:])
