"""What functions use that is hard to carry: each case is carried and gives the same in a clean process, or
is refused when it is saved, in words that name it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import model_envelope as me

VALUES = [1.0, 2.0, 3.0]

SAVE = """
import json as _json
import model_envelope as _me
try:
    _envelope = _me.save_model(
        query_function=predict, name="model", api_input=[1.0, 2.0, 3.0], **globals().get("MORE", {})
    )
    print(_json.dumps({"saved": str(_envelope.path)}))
except _me.EnvelopeError as _error:
    print(_json.dumps({"refused": type(_error).__name__, "message": _error.message, "hint": _error.hint}))
"""


@dataclass(frozen=True)
class Case:
    """A program that defines `predict`, and what becomes of it."""

    main: str
    """The program; `{home}` is the user's home, `{here}` the program's folder."""
    files: dict[str, str] = field(default_factory=dict)
    """Files beside it."""
    gives: list[float] | None = None
    """What it gives for 1, 2 and 3; `None` when it must be refused."""
    says: tuple[str, ...] = ()
    """What the refusal says, in its message or its hint."""
    variables: dict[str, str] = field(default_factory=dict)
    module: str | None = None
    """Run as `python -m`, with this file as the program."""


DOUBLE = "def double(value):\n    return value * 2\n"

# === packages of this machine

PACKAGES = {
    "editable": Case(
        """
        from editpack.scaling import scale
        def predict(values):
            return [scale(value) for value in values]
        """,
        gives=[10.0, 20.0, 30.0],
    ),
    "function defined in an editable package": Case("from editpack import predict", gives=[11.0, 21.0, 31.0]),
    "directory": Case(
        """
        import dirpack
        def predict(values):
            return [value + dirpack.offset() for value in values]
        """,
        gives=[41.5, 42.5, 43.5],
    ),
    "package metadata of a directory install": Case(
        """
        from importlib.metadata import version
        import dirpack
        def predict(values):
            return [value + dirpack.offset() + len(version("dir-pack")) for value in values]
        """,
        gives=[44.5, 45.5, 46.5],
    ),
    "wheel": Case(
        """
        def predict(values):
            import wheelpack
            return [wheelpack.triple(value) for value in values]
        """,
        gives=[3.0, 6.0, 9.0],
    ),
    "repository": Case(
        """
        import vcspack
        def predict(values):
            return [vcspack.halve(value) for value in values]
        """,
        gives=[0.5, 1.0, 1.5],
    ),
    "plugin by entry point": Case(
        """
        from importlib.metadata import entry_points
        def predict(values):
            (found,) = entry_points(group="model_envelope.test")
            return [found.load()(value) for value in values]
        """,
        gives=[101.0, 102.0, 103.0],
    ),
    "conflicting versions": Case(
        """
        import conflictpack
        def predict(values):
            return [value + conflictpack.ONE for value in values]
        """,
        says=("the environment cannot be locked", "conflict-pack", "exclude each other"),
    ),
    "editable package without its folder": Case(
        """
        import shutil
        import gonepack
        shutil.rmtree("{sources}/gone")
        def predict(values):
            return [value + gonepack.ONE for value in values]
        """,
        says=("the function imports `gonepack`, which was not captured",),
    ),
    "editable package that does not build": Case(
        """
        import brokenpack
        def predict(values):
            return [value + brokenpack.ONE for value in values]
        """,
        says=("no wheel can be built of `broken-pack`", "pip install"),
    ),
    "requirements=": Case(
        """
        MORE = {"requirements": ["{wheel}"]}
        def predict(values):
            names = ("wheel", "pack")
            return [__import__("".join(names)).triple(value) for value in values]
        """,
        gives=[3.0, 6.0, 9.0],
    ),
}

# === modules

MODULES = {
    "name that is computed": Case(
        """
        import importlib
        def predict(values):
            return [importlib.import_module("hid" + "den").double(value) for value in values]
        """,
        {"hidden.py": DOUBLE},
        gives=[2.0, 4.0, 6.0],
    ),
    "only constants of a module with a computed name": Case(
        """
        import importlib
        def predict(values):
            return [value + importlib.import_module("const" + "ants").ONE for value in values]
        """,
        {"constants.py": "ONE = 1"},
        gives=[2.0, 3.0, 4.0],
    ),
    "lazy import": Case(
        """
        def predict(values):
            from lazy import double
            return list(map(double, values))
        """,
        {"lazy.py": DOUBLE},
        gives=[2.0, 4.0, 6.0],
    ),
    "package data": Case(
        """
        import datapack
        def predict(values):
            return [value + datapack.table()["one"] for value in values]
        """,
        {
            "datapack/__init__.py": """
            import json
            from importlib.resources import files
            def table():
                return json.loads(files(__name__).joinpath("tables", "one.json").read_text())
            """,
            "datapack/tables/one.json": '{"one": 1}',
        },
        gives=[2.0, 3.0, 4.0],
    ),
    "package in parts": Case(
        """
        import parts.inner
        def predict(values):
            return [parts.inner.double(value) for value in values]
        """,
        {"parts/inner.py": DOUBLE},
        gives=[2.0, 4.0, 6.0],
    ),
    "circular imports": Case(
        """
        import first
        def predict(values):
            return [first.one(value) for value in values]
        """,
        {
            "first.py": "import second\nFACTOR = 4\ndef one(value):\n    return second.two(value)\n",
            "second.py": "import first\ndef two(value):\n    return value * first.FACTOR\n",
        },
        gives=[4.0, 8.0, 12.0],
    ),
    "import of everything": Case(
        """
        from everything import *
        def predict(values):
            return [double(value) + _hidden(value) for value in values]
        def _hidden(value):
            return 1
        """,
        {"everything.py": DOUBLE},
        gives=[3.0, 5.0, 7.0],
    ),
    "module with __getattr__": Case(
        """
        import dynamic
        def predict(values):
            return [value * dynamic.anything for value in values]
        """,
        {"dynamic.py": "def __getattr__(name):\n    return len(name)\n"},
        gives=[8.0, 16.0, 24.0],
    ),
    "module that hides one of the standard library": Case(
        """
        import statistics
        def predict(values):
            return [statistics.double(value) for value in values]
        """,
        {"statistics.py": DOUBLE},
        says=("statistics.py", "hides the standard library's module `statistics`", "another name"),
    ),
    "module with the name of a package": Case(
        """
        import wheelpack
        def predict(values):
            return [wheelpack.double(value) for value in values]
        """,
        {"wheelpack.py": DOUBLE},
        gives=[2.0, 4.0, 6.0],
    ),
    "module that was changed after its import": Case(
        """
        import pathlib
        import changed
        pathlib.Path(changed.__file__).write_text("def double(value):\\n    return value * 3\\n")
        def predict(values):
            return [changed.double(value) for value in values]
        """,
        {"changed.py": DOUBLE},
        says=("gives another output in a clean process", "changed after an import"),
    ),
    "module whose variable was set": Case(
        """
        import patched
        patched.FACTOR = 5
        def predict(values):
            return [patched.times(value) for value in values]
        """,
        {"patched.py": "FACTOR = 2\ndef times(value):\n    return value * FACTOR\n"},
        says=("gives another output in a clean process", "state that changed after an import"),
    ),
    "program of a package, with relative imports": Case(
        """
        from .inner import double
        def predict(values):
            from . import other
            return [double(value) + other.ONE for value in values]
        """,
        {"prog/__init__.py": "", "prog/inner.py": DOUBLE, "prog/other.py": "ONE = 1"},
        gives=[3.0, 5.0, 7.0],
        module="prog.main",
    ),
    "module in a zip archive": Case(
        """
        import sys
        sys.path.insert(0, "{here}/archive.zip")
        import zipped
        def predict(values):
            return [zipped.double(value) for value in values]
        """,
        says=("archive.zip", "unpack"),
    ),
    "modules= with a folder of data": Case(
        """
        MORE = {"modules": ["{here}/extra"]}
        def predict(values):
            from importlib.resources import files
            text = files("ex" + "tra").joinpath("one.txt").read_text()
            return [value + float(text) for value in values]
        """,
        {"extra/__init__.py": "", "extra/one.txt": "1"},
        gives=[2.0, 3.0, 4.0],
    ),
    "extension module": Case(
        """
        import native
        def predict(values):
            return [native.double(value) for value in values]
        """,
        gives=[2.0, 4.0, 6.0],
    ),
}

# === files and other things of this machine

FILES = {
    "relative data file": Case(
        """
        def predict(values):
            with open("data.txt") as file:
                one = float(file.read())
            return [value + one for value in values]
        """,
        {"data.txt": "1"},
        says=("it opens `data.txt`, which is not in the envelope", "load what is in `data.txt`"),
    ),
    "absolute data file": Case(
        """
        def predict(values):
            with open("{here}/data.txt") as file:
                one = float(file.read())
            return [value + one for value in values]
        """,
        {"data.txt": "1"},
        says=("it opens `{here}/data.txt`, which is not in the envelope", "modules="),
    ),
    "absolute data file with a default": Case(
        """
        def predict(values):
            try:
                with open("{here}/data.txt") as file:
                    one = float(file.read())
            except OSError:
                one = 0.0
            return [value + one for value in values]
        """,
        {"data.txt": "1"},
        says=("gives another output", "it opens `{here}/data.txt`"),
    ),
    "data file beside a module": Case(
        """
        import reader
        def predict(values):
            return [value + reader.one() for value in values]
        """,
        {
            "reader.py": """
            from pathlib import Path
            def one():
                return float((Path(__file__).parent / "one.txt").read_text())
            """,
            "one.txt": "1",
        },
        says=("one.txt`, which is not in the envelope",),
    ),
    "data file beside the program": Case(
        """
        from pathlib import Path
        def predict(values):
            return [value + float((Path(__file__).parent / "one.txt").read_text()) for value in values]
        """,
        {"one.txt": "1"},
        says=("it opens `one.txt`",),
    ),
    "data file that a module opens when it is imported": Case(
        """
        import eager
        def predict(values):
            return [value + eager.ONE for value in values]
        """,
        {"eager.py": "with open('{here}/one.txt') as file:\n    ONE = float(file.read())", "one.txt": "1"},
        says=("`{here}/one.txt`, which is not in the envelope",),
    ),
    "settings in the home folder": Case(
        """
        import json, os
        def predict(values):
            with open(os.path.expanduser("~/.settings.json")) as file:
                one = json.load(file)["one"]
            return [value + one for value in values]
        """,
        says=("it opens `.settings.json`",),
    ),
    "environment variable": Case(
        """
        import os
        def predict(values):
            return [value + float(os.environ["MY_OFFSET"]) for value in values]
        """,
        variables={"MY_OFFSET": "1"},
        says=("`MY_OFFSET` is an environment variable of this process", "read os.environ"),
    ),
    "environment variable that was read": Case(
        """
        import os
        OFFSET = float(os.environ["MY_OFFSET"])
        def predict(values):
            return [value + OFFSET for value in values]
        """,
        variables={"MY_OFFSET": "1"},
        gives=[2.0, 3.0, 4.0],
    ),
    "working folder": Case(
        """
        import os
        def predict(values):
            return [value + len(os.listdir(".")) for value in values]
        """,
        {f"{number}.txt": "" for number in range(9)},
        says=("gives another output in a clean process",),
    ),
    "SQLite file": Case(
        """
        import sqlite3
        sqlite3.connect("{here}/one.db").execute("create table if not exists one (one)").connection.commit()
        def predict(values):
            count = sqlite3.connect("{here}/one.db").execute("select count(*) from one").fetchone()[0]
            return [value + count for value in values]
        """,
        says=("one.db", "which is not in the envelope"),
    ),
    "time zones of the system": Case(
        """
        import datetime, zoneinfo
        def predict(values):
            zone = zoneinfo.ZoneInfo("Europe/Oslo")
            offset = datetime.datetime(2026, 1, 1, tzinfo=zone).utcoffset().total_seconds() / 3600
            return [value + offset for value in values]
        """,
        gives=[2.0, 3.0, 4.0],
    ),
    "files of its own": Case(
        """
        import os, tempfile
        def predict(values):
            with tempfile.NamedTemporaryFile("w+", delete=False) as file:
                file.write("1")
            with open(file.name) as again:
                one = float(again.read())
            os.remove(file.name)
            return [value + one for value in values]
        """,
        gives=[2.0, 3.0, 4.0],
    ),
    "threads and processes of its own": Case(
        """
        import subprocess, sys
        from concurrent.futures import ThreadPoolExecutor
        def predict(values):
            with ThreadPoolExecutor(2) as pool:
                doubled = list(pool.map(lambda value: value * 2, values))
            one = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout
            return [value + float(one) for value in doubled]
        """,
        gives=[3.0, 5.0, 7.0],
    ),
}

# === objects

OBJECTS = {
    "lru_cache in the program": Case(
        """
        import functools
        @functools.lru_cache(maxsize=4)
        def double(value):
            return value * 2
        def predict(values):
            return [double(value) for value in values]
        """,
        gives=[2.0, 4.0, 6.0],
    ),
    "lru_cache in a module": Case(
        """
        from cached import double
        def predict(values):
            return [double(value) for value in values]
        """,
        {"cached.py": "import functools\n@functools.lru_cache\n" + DOUBLE},
        gives=[2.0, 4.0, 6.0],
    ),
    "cache of a method": Case(
        """
        import functools
        class Model:
            @functools.cache
            def factor(self):
                return 2
            @functools.cached_property
            def offset(self):
                return 1
            def predict(self, values):
                return [value * self.factor() + self.offset for value in values]
        predict = Model().predict
        """,
        gives=[3.0, 5.0, 7.0],
    ),
    "closure over a DataFrame": Case(
        """
        import pandas as pd
        def make():
            weights = pd.DataFrame({"weight": [2.0]})
            return lambda values: [value * float(weights["weight"].iloc[0]) for value in values]
        predict = make()
        """,
        gives=[2.0, 4.0, 6.0],
    ),
    "dataclass, enum and namedtuple": Case(
        """
        import collections, dataclasses, enum, typing
        Pair = collections.namedtuple("Pair", "one two")
        class Typed(typing.NamedTuple):
            three: float = 3.0
        class Colour(enum.Enum):
            RED = 2.0
        class Flags(enum.IntFlag):
            A = 1
            B = 2
        @dataclasses.dataclass(frozen=True, slots=True)
        class Settings:
            colour: Colour
            pair: Pair
            typed: Typed
            flags: Flags = Flags.A | Flags.B
        settings = Settings(Colour.RED, Pair(1.0, 2.0), Typed())
        def predict(values):
            same = settings.colour is Colour.RED and settings.flags & Flags.B and settings == settings
            added = settings.pair.two + settings.typed.three
            return [value * settings.colour.value + added for value in values if same]
        """,
        gives=[7.0, 9.0, 11.0],
    ),
    "class of a notebook": Case(
        """
        source = '''
        class Base:
            factor = 2
        class Model(Base):
            def __init__(self):
                super().__init__()
                self.offset = 1
            def predict(self, values):
                return [value * self.factor + self.offset for value in values]
        predict = Model().predict
        '''
        import textwrap
        exec(compile(textwrap.dedent(source), "<ipython-input-1-abc>", "exec"), globals())
        """,
        gives=[3.0, 5.0, 7.0],
    ),
    "metaclass": Case(
        """
        class Meta(type):
            known = {}
            def __new__(kind, name, bases, body):
                made = super().__new__(kind, name, bases, body)
                Meta.known[name] = made
                return made
            @property
            def factor(cls):
                return len(cls.__name__)
        class Two(metaclass=Meta):
            pass
        def predict(values):
            return [value * Two.factor + len(Meta.known) for value in values]
        """,
        gives=[4.0, 7.0, 10.0],
    ),
    "properties and descriptors": Case(
        """
        class Doubled:
            def __set_name__(self, owner, name):
                self.name = "_" + name
            def __get__(self, instance, owner):
                return getattr(instance, self.name) * 2
            def __set__(self, instance, value):
                setattr(instance, self.name, value)
        class Model:
            factor = Doubled()
            def __init__(self):
                self.factor = 2
            @property
            def offset(self):
                return 1
            def predict(self, values):
                return [value * self.factor + self.offset for value in values]
        predict = Model().predict
        """,
        gives=[5.0, 9.0, 13.0],
    ),
    "abstract and generic classes": Case(
        """
        import abc, typing
        T = typing.TypeVar("T")
        class Base(abc.ABC, typing.Generic[T]):
            @abc.abstractmethod
            def one(self, value: T) -> T: ...
        class Model(Base[float]):
            __slots__ = ("factor",)
            def __init__(self):
                self.factor = 2.0
            def one(self, value):
                return value * self.factor
        model = Model()
        def predict(values):
            return [model.one(value) for value in values if isinstance(model, Base)]
        """,
        gives=[2.0, 4.0, 6.0],
    ),
    "exception class": Case(
        """
        class TooLarge(ValueError):
            def __init__(self, value, most):
                super().__init__(f"{value} > {most}")
                self.most = most
        def check(value):
            if value > 2:
                raise TooLarge(value, 2)
            return value
        def predict(values):
            found = []
            for value in values:
                try:
                    found.append(check(value))
                except TooLarge as error:
                    found.append(float(error.most))
            return found
        """,
        gives=[1.0, 2.0, 2.0],
    ),
    "singledispatch": Case(
        """
        import functools
        @functools.singledispatch
        def double(value):
            return value
        @double.register
        def _(value: float):
            return value * 2
        def predict(values):
            return [double(value) for value in values]
        """,
        gives=[2.0, 4.0, 6.0],
    ),
    "partial of a method": Case(
        """
        import functools
        class Model:
            def score(self, factor, values, *, offset):
                return [value * factor + offset for value in values]
        predict = functools.partial(Model().score, 2, offset=1)
        """,
        gives=[3.0, 5.0, 7.0],
    ),
    "recursive closures": Case(
        """
        def make():
            def even(count):
                return True if count == 0 else odd(count - 1)
            def odd(count):
                return False if count == 0 else even(count - 1)
            return lambda values: [value + even(int(value)) for value in values]
        predict = make()
        """,
        gives=[1.0, 3.0, 3.0],
    ),
    "logger": Case(
        """
        import logging
        logger = logging.getLogger("mine")
        logger.addHandler(logging.StreamHandler())
        def predict(values):
            logger.info("called")
            return list(values)
        """,
        gives=VALUES,
    ),
    "event loop of its own": Case(
        """
        import asyncio
        async def double(value):
            await asyncio.sleep(0)
            return value * 2
        def predict(values):
            async def all_of_them():
                return await asyncio.gather(*map(double, values))
            return list(asyncio.run(all_of_them()))
        """,
        gives=[2.0, 4.0, 6.0],
    ),
    "variable that every call changes": Case(
        """
        COUNT = 0
        def predict(values):
            global COUNT
            COUNT += 1
            return [value + COUNT for value in values]
        """,
        says=("gives another output in a clean process",),
    ),
    "open file": Case(
        """
        file = open(__file__)
        def predict(values):
            return [value + len(file.name) * 0 for value in values]
        """,
        says=("it uses `file`, a _io.TextIOWrapper", "create `file` inside the function"),
    ),
    "lock": Case(
        """
        import threading
        lock = threading.Lock()
        def predict(values):
            with lock:
                return list(values)
        """,
        says=("it uses `lock`, a _thread.lock",),
    ),
    "generator": Case(
        """
        numbers = (number for number in range(3))
        def predict(values):
            return [value + next(numbers) for value in values]
        """,
        says=("it uses `numbers`, a generator",),
    ),
    "thread pool": Case(
        """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        def predict(values):
            return list(pool.map(float, values))
        """,
        says=("it uses `pool", "inside the function"),
    ),
    "logging handler": Case(
        """
        import logging
        handler = logging.StreamHandler()
        def predict(values):
            handler.flush()
            return list(values)
        """,
        says=("it uses `handler", "inside the function"),
    ),
    "context variable": Case(
        """
        import contextvars
        factor = contextvars.ContextVar("factor", default=2)
        def predict(values):
            return [value * factor.get() for value in values]
        """,
        says=("it uses `factor`", "inside the function"),
    ),
    "weak reference": Case(
        """
        import weakref
        class Model:
            factor = 2
        model = Model()
        reference = weakref.ref(model)
        def predict(values):
            return [value * reference().factor for value in values]
        """,
        says=("it uses `reference`", "inside the function"),
    ),
    "SQLite connection": Case(
        """
        import sqlite3
        connection = sqlite3.connect(":memory:")
        def predict(values):
            return [value + connection.execute("select 1").fetchone()[0] for value in values]
        """,
        says=("it uses `connection`, a sqlite3.Connection",),
    ),
}

CASES = PACKAGES | MODULES | FILES | OBJECTS


# === running

NATIVE = """
#include <Python.h>
static PyObject *twice(PyObject *self, PyObject *value)
{ return PyFloat_FromDouble(2 * PyFloat_AsDouble(value)); }
static PyMethodDef methods[] = {{"double", twice, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, methods};
PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&module); }
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """An extension module that nobody has installed."""
    folder = tmp_path_factory.mktemp("native")
    compiler = shutil.which("cc")
    if compiler is None or not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("there is no C compiler, or no header of Python")
    (folder / "native.c").write_text(NATIVE)
    library = folder / f"native{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-I{include}", folder / "native.c", "-o", library], check=True
    )
    return library


@pytest.fixture
def attempt(site, tmp_path, request):
    """Runs the program of a case; gives what it said, and its folder."""

    def attempt(case, name=""):
        here, home = tmp_path / "here", tmp_path / "home"
        home.mkdir()
        (home / ".settings.json").write_text('{"one": 1}')
        known = {
            "{here}": str(here),
            "{home}": str(home),
            "{wheel}": str(site.wheel),
            "{sources}": str(site.sources),
        }
        main = f"{case.module.replace('.', '/')}.py" if case.module else "main.py"
        for file, text in {**case.files, main: case.main}.items():
            for word, value in known.items():
                text = text.replace(word, value)
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).write_text(textwrap.dedent(text).strip() + "\n" + (SAVE if file == main else ""))
        with zipfile.ZipFile(here / "archive.zip", "w") as archive:
            archive.writestr("zipped.py", DOUBLE)
        if name == "extension module":
            shutil.copy(request.getfixturevalue("native"), here)
        start = f"import runpy, site, sys; sys.path.insert(0, {str(here)!r}); "
        start += f"site.addsitedir({str(site.folder)!r}); "
        run = f"runpy.run_module({case.module!r}" if case.module else f"runpy.run_path({str(here / main)!r}"
        # A name that is imported is not `__main__`: programs are.
        command = [
            sys.executable,
            "-c",
            f"{start}{run}, run_name='__main__', alter_sys=True)" if case.module else "",
        ]
        if not case.module:
            (here / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(site.folder)!r})")
            command = [sys.executable, str(here / main)]
        variables = {**os.environ, **case.variables, "HOME": str(home), "PYTHONPATH": str(here)}
        variables.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
        done = subprocess.run(
            command, cwd=here, env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), here

    return attempt


def test_there_are_enough_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_it_is_carried_or_refused_in_words(name, attempt):
    case = CASES[name]
    told, here = attempt(case, name)
    if case.gives is None:
        assert "refused" in told, told
        assert "\n" not in told["message"]
        for text in case.says:
            assert text.replace("{here}", str(here)) in f"{told['message']}; {told['hint']}"
    else:
        assert "saved" in told, told
        shutil.move(here, f"{here}-elsewhere")
        assert me.get(Path(told["saved"])).predict(VALUES) == case.gives
