"""Envelopes are found again, shown, and loaded only where that is safe."""

import json
import multiprocessing
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest

import model_envelope as me

SAMPLE = [1.0, 2.0]


def double(values):
    return [value * 2 for value in values]


@pytest.fixture
def doubler(save):
    return save(double, SAMPLE, name="doubler", tags={"region": "US"})


def test_the_newest_is_got(save, doubler):
    second = save(double, SAMPLE, name="doubler", description="again")
    assert (doubler.version, second.version) == (1, 2)
    assert me.get("doubler").id == "doubler:2"
    for ref in ("doubler:1", doubler.digest, "region=US", str(doubler.path), doubler.path):
        assert me.get(ref).digest == doubler.digest


def test_the_same_is_the_same_version(save, doubler):
    again = save(double, SAMPLE, name="doubler", tags={"region": "US"})
    assert (again.version, again.digest) == (doubler.version, doubler.digest)


def test_near_misses_are_named(doubler):
    for ref in ("dobler", "doubler:9"):
        with pytest.raises(me.NotFound) as missed:
            me.get(ref)
        assert "doubler" in missed.value.hint
    with pytest.raises(me.NotFound, match="there is no file"):
        me.get("nowhere.envelope")
    with pytest.raises(me.NotFound, match="no function `triple`"):
        doubler.predict(SAMPLE, function="triple")


@pytest.mark.parametrize("ref", ["", None, 7, "a b", "region in (US"])
def test_references_that_mean_nothing_are_refused(ref):
    with pytest.raises(me.InvalidInput):
        me.get(ref)


def test_tags_are_found_and_changed(save, doubler):
    other = save(double, SAMPLE, name="other", tags={"region": "UK"})
    assert [found.id for found in me.find()] == ["other:1", "doubler:1"]
    assert [found.id for found in me.find("region in (UK,FR)")] == [other.id]
    changed = doubler.tag(passes_tests="true", region=None)
    assert changed.tags == {"passes_tests": "true"}
    assert [found.id for found in me.find("passes_tests=true,!region")] == [doubler.id]
    assert doubler.tags == {"region": "US"}
    assert me.find(limit=1)[0].id == other.id


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"region": 5}, "is not text to text"),
        ({"region": "\ud800"}, "is not valid Unicode"),
        ({"a b": "x"}, "is not a tag key"),
        ({"region": "x" * 2000}, "2000 bytes"),
    ],
)
def test_tags_that_cannot_be_kept_are_refused(save, doubler, tags, expected):
    for attempt in (lambda: doubler.tag(**tags), lambda: save(double, SAMPLE, name="other", tags=tags)):
        with pytest.raises(me.InvalidInput, match=expected):
            attempt()
    assert [found.tags for found in me.find()] == [{"region": "US"}]


def test_envelopes_are_pleasant_to_see(save):
    envelope = save(double, SAMPLE, name="shown", description="<b>bold</b>", tags={"team": "<a&b>"})
    assert repr(envelope).startswith(f"<Envelope shown:1 {envelope.digest[:19]}… double(list: values) → list")
    card = envelope._repr_html_()
    assert "&lt;b&gt;bold" in card
    assert "team=&lt;a&amp;b&gt;" in card
    assert "<script" not in card
    assert "http" not in card
    listed = me.find("team")
    assert "shown:1" in listed._repr_html_()
    assert listed.to_pandas().loc[0, "team"] == "<a&b>"


def test_everything_derived_is_there(doubler):
    assert doubler.signature["double"]["input"]["fields"][0]["type"] == "float64"
    assert doubler.stats["input"]["columns"][0]["numbers"]["mean"] == 1.5
    assert doubler.environment["python"]["implementation"] == "cpython"
    assert 'name = "cloudpickle"' in doubler.environment["lock"]
    assert doubler.certificate["double"]["row_wise"]


@pytest.fixture
def changed(doubler, tmp_path):
    """The same envelope with another manifest or another lock."""

    def changed(change=lambda manifest: None, lock=lambda text: text):
        manifest = doubler.manifest
        members = manifest.pop("members")
        change(manifest)
        content = {member["name"]: me._native.read_member(doubler.path, member["name"]) for member in members}
        content["environment/pylock.toml"] = lock(content["environment/pylock.toml"].decode()).encode()
        path = tmp_path / "changed.envelope"
        me._native.EnvelopeWriter(path).finish(json.dumps(manifest), list(content.items()))
        return me.get(path)

    return changed


def test_another_interpreters_code_is_not_loaded(changed):
    def change(manifest):
        manifest["environment"]["python"] |= {"version": "3.99.0", "cache_tag": "cpython-399"}

    envelope = changed(change)
    with pytest.raises(me.EnvironmentMismatch, match="saved with cpython-399") as refused:
        envelope.load()
    assert ".predict" in refused.value.hint
    with pytest.raises(me.EnvironmentMismatch, match=r"needs cpython 3\.99"):
        envelope.predict(SAMPLE)


def test_other_packages_are_not_loaded_with(changed):
    envelope = changed(
        lock=lambda text: (
            text.replace('version = "3.', 'version = "2.')
            + '\n[[packages]]\nname = "nowhere"\nversion = "1"\n'
            + f'wheels = [{{url = "https://example.org/n.whl", hashes = {{sha256 = "{"0" * 64}"}}}}]\n'
        )
    )
    with pytest.raises(me.EnvironmentMismatch) as refused:
        envelope.load()
    assert "cloudpickle 2." in refused.value.message
    assert "nowhere 1 is not installed" in refused.value.message


def test_another_module_of_the_same_name_is_not_loaded_over(save, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "clash.py").write_text("VALUE = 1")
    monkeypatch.syspath_prepend(tmp_path / "one")

    def value(values):
        import clash

        return [clash.VALUE for _ in values]

    envelope = save(value, SAMPLE)
    assert envelope.load()(SAMPLE) == [1, 1]
    (tmp_path / "one" / "clash.py").write_text("VALUE = 2")
    with pytest.raises(me.EnvironmentMismatch, match="carries a module `clash`"):
        envelope.load()
    assert envelope.predict(SAMPLE) == [1, 1]


def test_with_trust_only_what_is_vouched_for_is_run(doubler, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("")
    monkeypatch.setenv("ENVELOPE_TRUST", str(keys))
    for run in (lambda envelope: envelope.predict(SAMPLE), lambda envelope: envelope.load()):
        with pytest.raises(me.BadEnvelope, match="nobody vouches for"):
            run(me.get("doubler"))
    program = Path(__file__).resolve().parents[2] / "target" / "release" / "envelope"
    for step in (["keygen", tmp_path / "mine"], ["sign", doubler.path, "--key", tmp_path / "mine"]):
        subprocess.run([program, *step], check=True, capture_output=True)
    with pytest.raises(me.BadEnvelope):
        me.get("doubler").predict(SAMPLE)
    keys.write_text((tmp_path / "mine.pub").read_text())
    assert me.get("doubler").predict(SAMPLE) == [2.0, 4.0]
    keys.unlink()
    with pytest.raises(me.InvalidInput, match="cannot be read"):
        me.get("doubler").predict(SAMPLE)


def test_damage_is_found(doubler, tmp_path):
    for name, content in (("cut", doubler.path.read_bytes()[:-100]), ("text", b"not an envelope")):
        path = tmp_path / f"{name}.envelope"
        path.write_bytes(content)
        with pytest.raises(me.BadEnvelope):
            me.get(path)


def test_it_is_a_zip_file(doubler):
    assert "manifest.json" in zipfile.ZipFile(doubler.path).namelist()


def test_functions_fail_with_their_traceback(save):
    def picky(values):
        return [1 / value for value in values]

    envelope = save(picky, SAMPLE)
    with pytest.raises(me.PredictionFailed, match="`picky` raised ZeroDivisionError") as failed:
        envelope.predict([0.0])
    assert 'test_store.py", line' in failed.value.details
    assert "in picky" in failed.value.details
    assert envelope.predict([2.0]) == [0.5]


def test_calls_that_take_too_long_end(save):
    def slow(values):
        import time

        # Not for the rows that are tried when it is saved.
        time.sleep(60.0 if values[0] == 60.0 else 0.0)
        return values

    envelope = save(slow, [0.0, 0.01])
    with pytest.raises(me.PredictionFailed, match="did not end within 200 ms"):
        envelope.predict([60.0], timeout=0.2)
    assert envelope.predict([0.0]) == [0.0]


def test_forked_children_have_workers_of_their_own(doubler):
    assert doubler.predict(SAMPLE) == [2.0, 4.0]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(predict_again, ([3.0],)) == [6.0]
    assert doubler.predict(SAMPLE) == [2.0, 4.0]


def predict_again(values):
    return me.get("doubler").predict(values)


def test_remote_stores_are_not_there_yet(monkeypatch):
    monkeypatch.setenv("ENVELOPE_URL", "https://envelopes.example")
    with pytest.raises(me.InvalidInput, match="keeps envelopes in a folder"):
        me.find()


def test_frames_of_envelopes(doubler):
    assert isinstance(me.find().to_pandas(), pd.DataFrame)
