"""Who is let in to a cluster that others could reach.

127.0.0.2 stands for an address of another machine: what listens to this machine only is at 127.0.0.1.
"""

import os
import socket
import subprocess

import pytest
from support import KEPT, PROGRAM, ROWS, Cluster, checksum, processes, refused, rows_of, run, wait_until

PUBLIC = "127.0.0.2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with an authority, certificates that it has signed, and one of somebody else."""
    folder = tmp_path_factory.mktemp("authority")
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    for name, signed_by in (("node", "ca"), ("stranger", "other")):
        openssl(folder, "req", "-newkey", "ed25519", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (folder / "names").write_text(f"subjectAltName=IP:{PUBLIC}\n")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-days", "2", "-extfile", "names",
                "-CA", f"{signed_by}.pem", "-CAkey", f"{signed_by}.key", "-CAcreateserial", "-out", f"{name}.pem")  # fmt: skip
    (folder / "token").write_text("the token of this cluster\n")
    (folder / "guessed").write_text("a token that was guessed\n")
    return folder


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def credentials(folder, name="node", token="token"):
    files = {
        "certificate": f"{name}.pem",
        "key": f"{name}.key",
        "ca": "ca.pem",
        "token": token,
    }
    return [part for what, file in files.items() for part in (f"--cluster-{what}", folder / file)]


def test_certificates_and_a_token_let_parts_on_other_machines_in(authority, table, tmp_path):
    let_in = credentials(authority)
    run("score", table, tmp_path / "local")
    with processes() as start:
        here = Cluster(start, PUBLIC, let_in)
        here.join(), here.join()
        wait_until(lambda: is_accepted(here, table, tmp_path / "out", let_in), 30)

        for wrong in (credentials(authority, "stranger"), credentials(authority, token="guessed")):
            code, error = refused("score", table, tmp_path / "no", "--cluster", here.url, *wrong)
            assert code == 6 and "does not let this program in" in error["message"], error
        code, error = refused("score", table, tmp_path / "no", "--cluster", here.url)
        assert code == 6 and "does not answer" in error["message"], error
        address = here.url.removeprefix("df://").split(":")
        assert not answers_without_encryption(address[0], int(address[1]))
    assert checksum(rows_of(tmp_path / "out")) == checksum(rows_of(tmp_path / "local"))
    assert len(rows_of(tmp_path / "out")) == ROWS


def test_executors_without_a_store_get_an_envelope_from_their_scheduler_once(authority, table, tmp_path):
    let_in, cache = credentials(authority), tmp_path / "cache"
    cache.mkdir()
    # Environments need not be made again for this.
    (cache / "environments").symlink_to(KEPT / "cache" / "environments")
    elsewhere = {"ENVELOPE_URL": str(tmp_path / "no-store"), "ENVELOPE_CACHE_DIR": str(cache)}
    with processes() as start:
        here = Cluster(start, PUBLIC, let_in)
        for _ in range(2):
            here.join(env={**os.environ, **elsewhere})
        wait_until(lambda: is_accepted(here, table, tmp_path / "out", let_in), 30)
        copies = list((cache / "envelopes").glob("*.envelope"))
        made = [copy.stat().st_mtime_ns for copy in copies]
        run("score", table, tmp_path / "again", "--cluster", here.url, *let_in)
        assert [copy.stat().st_mtime_ns for copy in copies] == made
    assert len(rows_of(tmp_path / "out")) == ROWS
    stored = KEPT / "store" / "envelopes" / copies[0].name
    assert len(copies) == 1 and copies[0].read_bytes() == stored.read_bytes()
    assert not list((cache / "envelopes").glob("*.part")) and not (tmp_path / "no-store").exists()


def is_accepted(here, table, output, let_in):
    """Runs a job as soon as both executors have joined: their pages cannot be looked at from outside."""
    command = [PROGRAM, "batch", "score", "--input", table, "--output", output, "--keep", "id"]
    done = subprocess.run([*command, "--cluster", here.url, *let_in], capture_output=True, text=True)
    assert done.returncode == 0 or "has no executors" in done.stderr, done.stderr
    return done.returncode == 0


def answers_without_encryption(host, port):
    with socket.create_connection((host, port), 5) as plain:
        plain.settimeout(5)
        plain.sendall(b"GET /api/executors HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return b"HTTP/1.1 200" in plain.recv(1000)
        except (ConnectionError, TimeoutError):
            return False


@pytest.mark.parametrize("verb", [("scheduler", "--listen", "0.0.0.0:50050"), ("scheduler", "--listen", "[::]:50050"),
                                  ("executor", "--listen", "192.0.2.7"), ("executor", "--scheduler", "192.0.2.7:50050")])  # fmt: skip
def test_without_credentials_nobody_else_is_let_in(verb):
    done = subprocess.run([PROGRAM, *verb], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "error[exposed]" in done.stderr and "other machines" in done.stderr


def test_some_credentials_are_none(authority):
    verb = [PROGRAM, "scheduler", "--cluster-ca", authority / "ca.pem"]
    done = subprocess.run(verb, capture_output=True, text=True, timeout=10)
    assert done.returncode == 2 and "--cluster-token" in done.stderr
