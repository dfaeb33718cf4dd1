"""Servers that speak S3, and a way to them that fails when it is told to."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.dataset
import pyarrow.fs

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(os.environ.get("S3_TOOLS", ROOT / "target" / "tools"))
SECRET = "the-secret-of-these-tests"
# What each server is good for: one checks signatures and checksums, but lets two create one object at the
# same time; the other does not check them, and lets one win.
FUNCTION, RACES = "s3s-fs", "moto"


def program(name):
    """Where the server is, if it is installed."""
    places = {FUNCTION: TOOLS / "bin" / "s3s-fs", RACES: TOOLS / "moto" / "bin" / "moto_server"}
    return places[name] if places[name].exists() else shutil.which(places[name].name)


class Server:
    def __init__(self, folder, url):
        self.folder, self.url = folder, url

    def variables(self, url=None):
        return {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url or self.url,
        }

    def options(self):
        """The same for readers that are not ours."""
        return {**self.variables(), "AWS_ALLOW_HTTP": "true", "AWS_CONDITIONAL_PUT": "etag"}

    def rows(self, folder):
        """Rows of a folder of Parquet files, as another program reads them."""
        address = self.url.removeprefix("http://")
        bucket = pyarrow.fs.S3FileSystem(
            access_key="tests",
            secret_key=SECRET,
            endpoint_override=address,
            scheme="http",
            region="us-east-1",
        )
        # Not all servers can be asked whether a folder is a file.
        below = pyarrow.fs.FileSelector(folder.removeprefix("s3://"), recursive=True)
        files = [info.path for info in bucket.get_file_info(below) if info.is_file]
        visible = [path for path in files if "/_" not in path]
        return pyarrow.dataset.dataset(visible, filesystem=bucket).to_table()

    def put(self, key, data):
        """Puts an object in the bucket `lake`, past all signatures."""
        if self.folder:
            path = self.folder / "lake" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            # Without credentials of any kind, moto lets nobody replace what is there.
            headers = {"content-type": "application/octet-stream", "authorization": "AWS tests:unsigned"}
            request = urllib.request.Request(f"{self.url}/lake/{key}", data, headers, method="PUT")
            urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def serve(name, folder):
    """A server with an empty bucket `lake`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    if name == FUNCTION:
        (folder / "lake").mkdir()
        keys = ("--access-key", "tests", "--secret-key", SECRET)
        command = [program(name), *keys, "--host", "127.0.0.1", "--port", str(port), folder]
    else:
        command = [program(name), "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(port)
        server = Server(folder if name == FUNCTION else None, url)
        if name == RACES:
            urllib.request.urlopen(urllib.request.Request(f"{url}/lake", method="PUT"), timeout=10).close()
        yield server
    finally:
        process.terminate()
        process.wait(10)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)


# What may become of a request on its way.
BUSY, LOST = "503", "answer lost"


@contextmanager
def way_to(server, fate):
    """A proxy that asks `fate(method, path, number)` what becomes of a request: nothing, `BUSY` (not passed
    on), or `LOST` (passed on, but nobody hears the answer). Gives its URL and what it did."""
    done = []
    host = server.url.removeprefix("http://")
    lock, numbers = threading.Lock(), iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self):
            with lock:
                outcome = fate(self.command, self.path, next(numbers))
                if outcome:
                    done.append((outcome, self.command, self.path))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if outcome == BUSY:
                self.send_response(503)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            there = http.client.HTTPConnection(host, timeout=60)
            # With the headers as they are signed.
            there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                there.putheader(name, value)
            there.endheaders(body)
            answer = there.getresponse()
            content = answer.read()
            there.close()
            if outcome == LOST:
                assert answer.status == 200, content
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                    if name.lower() != "content-length" or self.command == "HEAD":
                        self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def log_message(self, *_):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", done
    finally:
        proxy.shutdown()
        thread.join()


def is_entry(method, path):
    """Whether a request writes an entry of a Delta log, or of the ledger of a folder of Parquet files."""
    return method == "PUT" and re.search(r"/_(delta_log|envelope_commits)/\d{20}\.json$", path) is not None
