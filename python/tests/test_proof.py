"""What is kept of a proof: where it ran, what it saw, how long it took, and what it ran with."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import packages
import pytest

import model_envelope as me

VALUES = [1.0, 2.0, 3.0]


def warning(values):
    warnings.warn("be careful", stacklevel=1)
    return [value * 2 for value in values]


def reading_a_system_file(values):
    with open("/etc/hosts") as file:
        return [value + 0 * len(file.name) for value in values]


def looking_for_a_file(values):
    try:
        with open("absent.txt"):
            pass
    except OSError:
        pass
    return list(values)


def starting_a_program(values):
    import subprocess

    subprocess.run([sys.executable, "-c", ""], check=True)
    return list(values)


def calling_home(values):
    import socket

    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1).close()
    return list(values)


def transcript(envelope):
    (found,) = envelope.transcript.values()
    return found


def test_a_transcript_tells_versions_durations_and_the_view(save):
    found = transcript(save(warning, VALUES))
    assert found["proof"] == "full"
    assert found["view"] == "landlock", "these tests need a kernel with Landlock"
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert list(found["packages"]) == found["modules"] == ["cloudpickle"]
    assert set(found["seconds"]) == {"lock", "environment", "load", "call", "trials"}
    assert found["seconds"]["load"] > 0
    assert found["seconds"]["call"] > 0


def test_a_transcript_tells_warnings(save):
    found = transcript(save(warning, VALUES))["warnings"]
    assert {"category": "UserWarning", "message": "be careful"} in found


def test_a_transcript_tells_what_a_function_opens_and_calls(save):
    assert transcript(save(reading_a_system_file, VALUES))["files"] == ["/etc/hosts"]
    assert transcript(save(looking_for_a_file, VALUES))["missing"] == ["absent.txt"]
    assert len(transcript(save(starting_a_program, VALUES))["programs"]) == 1
    with pytest.warns(UserWarning, match=r"connected to 127\.0\.0\.1.*--grant network"):
        home = save(calling_home, VALUES)
    assert transcript(home)["connections"] == ["127.0.0.1"]


def test_functions_of_one_envelope_have_transcripts_of_their_own(save):
    both = save(reading_a_system_file, VALUES).add_query_function(warning, api_input=VALUES)
    found = both.transcript
    assert found["reading_a_system_file"]["files"] == ["/etc/hosts"]
    assert found["warning"]["files"] == []
    assert found["reading_a_system_file"]["warnings"] == []


def test_a_file_of_this_machine_cannot_be_written_either(save, tmp_path):
    target = str(tmp_path / "written.txt")

    def writing(values):
        if os.environ.get("HOME") != home:
            Path(target).write_text("")
        return list(values)

    home = os.environ.get("HOME")
    with pytest.raises(me.NotServable, match=re.escape(f"it opens `{target}`")):
        save(writing, VALUES)
    assert not Path(target).exists()


# === quick proofs


def test_a_quick_proof_makes_no_environment_and_says_so(save, monkeypatch, tmp_path):
    monkeypatch.setenv("ENVELOPE_CACHE_DIR", str(tmp_path / "cache"))
    quick = save(warning, VALUES, prove="quick")
    assert not (tmp_path / "cache" / "environments").exists()
    assert quick.manifest["functions"][0]["proof"] == "quick"
    assert transcript(quick)["proof"] == "quick"
    assert transcript(quick)["view"] == "landlock"
    assert "quick proof" in quick._repr_html_()
    assert "proof" not in save(warning, VALUES).manifest["functions"][0]
    assert quick.predict(VALUES) == [2.0, 4.0, 6.0]


def test_a_quick_proof_refuses_what_is_not_captured(save, tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("1")
    with pytest.raises(me.NotServable, match="which is not in the envelope"):
        save(lambda values: [value + len(path.read_text()) for value in values], VALUES, prove="quick")


def test_there_are_two_kinds_of_proof(save):
    with pytest.raises(me.InvalidInput, match="'none' is not a kind of proof"):
        save(warning, VALUES, prove="none")


# === wheels

EDITABLE = """
import site
site.addsitedir({folder!r})
import model_envelope as me
from editpack.scaling import scale
def predict(values):
    return [scale(value) for value in values]
print(me.save_model(query_function=predict, name="model", api_input=[1.0, 2.0], **{more}).path)
"""


def wheel_of(path):
    envelope = me.get(Path(path.strip()))
    (name,) = envelope.manifest["environment"]["wheels"]
    return envelope, name, me._native.read_member(envelope.path, name)


def test_an_editable_package_is_carried_as_a_wheel(python, site):
    before = sorted(site.sources.rglob("*"))
    envelope, name, wheel = wheel_of(python(EDITABLE.format(folder=str(site.folder), more={})))
    assert name == "environment/wheels/edit_pack-1.0-py3-none-any.whl"
    lock = envelope.environment["lock"]
    digest = hashlib.sha256(wheel).hexdigest()
    assert (
        f'archive = {{ path = "wheels/edit_pack-1.0-py3-none-any.whl", hashes = {{ sha256 = "{digest}"'
        in lock
    )
    assert str(site.sources) not in lock
    assert envelope.manifest["source"]["modules"] == []
    assert sorted(site.sources.rglob("*")) == before, "building leaves nothing in the author's folder"


def test_the_same_source_gives_the_same_wheel(python, site):
    program = EDITABLE.format(folder=str(site.folder), more={})
    assert wheel_of(python(program))[2] == wheel_of(python(program))[2]


def test_a_quick_proof_carries_wheels_too(site, tmp_path):
    program = EDITABLE.format(folder=str(tmp_path), more={"prove": "quick"})
    environment = tmp_path / "environment"
    packages.uv("venv", environment)
    own = environment / "bin/python"
    packages.uv("pip", "install", "-e", site.sources / "edit", python=own)
    done = subprocess.run(
        [own, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(me.__file__).parents[1]),
            "ENVELOPE_UV": packages.program(),
        },
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    envelope, _, _ = wheel_of(done.stdout)
    assert envelope.manifest["functions"][0]["proof"] == "quick"
    assert envelope.predict([1.0]) == [10.0]


def test_a_quick_proof_has_the_environment_of_the_interpreter(python, site):
    program = EDITABLE.format(folder=str(site.folder), more={"prove": "quick"})
    with pytest.raises(AssertionError, match="only this process has on its path"):
        python(program)


# === the lock

TRAINING = {
    "pack/__init__.py": "",
    "pack/train.py": "import pandas\nimport model_envelope\n",
    "pack/score.py": "from .base import FACTOR\ndef double(value):\n    return value * FACTOR\n",
    "pack/base.py": "FACTOR = 2\n",
}


def test_what_only_the_training_needs_is_not_locked(save, tmp_path, monkeypatch):
    for name, text in TRAINING.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def predict(values):
        from pack.score import double

        return [double(value) for value in values]

    saved = save(predict, VALUES)
    assert re.findall(r'^name = "(.*)"', saved.environment["lock"], re.MULTILINE) == ["cloudpickle"]
    assert "modules/pack/base.py" in saved.manifest["source"]["modules"]
    assert saved.predict(VALUES) == [2.0, 4.0, 6.0]


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that asks for a name and a password."""

    wheel = Path()

    def do_GET(self):
        expected = "Basic " + base64.b64encode(b"me:secret").decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        kind, body = self.found()
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def found(self):
        if self.path.endswith(".whl"):
            return "application/octet-stream", self.wheel.read_bytes()
        if self.path.strip("/") == "simple/wheel-pack":
            digest = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
            link = f'<a href="/files/{self.wheel.name}#sha256={digest}">{self.wheel.name}</a>'
            return "text/html", f"<html><body>{link}</body></html>".encode()
        return "text/html", None

    def log_message(self, *_):
        pass


@pytest.fixture
def index(site):
    """The address of an index with `wheel-pack`, with the credentials."""
    handler = type("Handler", (Index,), {"wheel": site.wheel})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:secret@127.0.0.1:{server.server_port}/simple"
    server.shutdown()


FROM_INDEX = """
import site
site.addsitedir({folder!r})
import model_envelope as me
import wheelpack
def predict(values):
    return [wheelpack.triple(value) for value in values]
print(me.save_model(query_function=predict, name="model", api_input=[1.0, 2.0]).path)
"""


def test_another_index_is_recorded_without_credentials(python, index, tmp_path):
    folder = tmp_path / "site-packages"
    packages.uv("pip", "install", "--target", folder, "--extra-index-url", index, "wheel-pack", cwd=tmp_path)
    told = python(FROM_INDEX.format(folder=str(folder)), UV_EXTRA_INDEX_URL=index)
    envelope = me.get(Path(told.strip()))
    lock = envelope.environment["lock"]
    assert index.replace("me:secret@", "").removesuffix("/simple") in lock
    assert "secret" not in lock
    assert b"secret" not in Path(told.strip()).read_bytes()


# === how long it takes


def test_the_parts_of_a_save_are_told_when_asked_for(python):
    program = (
        "import model_envelope as me\n"
        "def double(values):\n    return [value * 2 for value in values]\n"
        "me.save_model(query_function=double, name='model', api_input=[1.0, 2.0])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env={**os.environ, "ENVELOPE_LOG": "info"}, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith("saved "))
    seconds = json.loads(line.removeprefix("saved "))["seconds"]
    assert set(seconds) >= {"capture", "lock", "environment", "proof", "trials", "write"}
    assert python(program) == ""
