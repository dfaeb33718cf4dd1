"""Makes the envelopes that the tests use: `python envelopes.py NAME FILE`."""

import os
import shutil
import sys
import tempfile
import time

import model_envelope as me


def frame(rows=64):
    import pandas as pd

    return pd.DataFrame(
        {
            "id": range(rows),
            "a": [index / 7 for index in range(rows)],
            "b": [float(index % 5) for index in range(rows)],
            "colour": [("red", "green", "blue")[index % 3] for index in range(rows)],
        }
    )


def save(function, sample, **more):
    return me.save_model(
        query_function=function, name=more.pop("name", function.__name__), api_input=sample, **more
    )


def cheap():
    """Row-wise, vectorised, numpy only: `a * 2 + b` as a column."""

    def cheap(features):
        return features["a"] * 2 + features["b"]

    return save(cheap, frame()[["a", "b"]], tags={"kind": "cheap"})


def minus():
    """Takes what `cheap` takes, gives something else."""

    def minus(features):
        return features["a"] * 2 - features["b"]

    return save(minus, frame()[["a", "b"]])


def times():
    """Takes what `cheap` takes, gives something else again."""

    def times(features):
        return features["a"] * features["b"]

    return save(times, frame()[["a", "b"]])


def nullable():
    """Takes a number that may be missing and a text; gives a frame of two columns."""
    import pandas as pd

    def nullable(features):
        return pd.DataFrame(
            {
                "score": features["a"].fillna(-1.0) * 10,
                "label": [
                    "none" if text is None else text.upper() for text in features["colour"].astype(object)
                ],
            }
        )

    sample = frame()[["a", "colour"]]
    sample.loc[3, "a"] = None
    return save(nullable, sample)


def reducer():
    """One value for all the rows of a call."""

    def reducer(features) -> float:
        return float(features["a"].sum())

    return save(reducer, frame()[["a"]])


def ranking():
    """Not row-wise: the rank of a row depends on the others."""

    def ranking(features):
        return features["a"].rank()

    return save(ranking, frame()[["a"]])


def naughty():
    """Misbehaves on request, by the value of `action`: kills, hangs, exits, raises, prints."""

    def naughty(features):
        action = features["action"].iloc[0]
        if action == "segfault":
            import ctypes

            ctypes.string_at(0)
        elif action == "exit":
            os._exit(3)
        elif action == "kill":
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "hang":
            while True:
                pass
        elif action == "sleep":
            time.sleep(float(features["x"].iloc[0]))
        elif action == "raise":
            raise ValueError(f"bad row {features['x'].iloc[0]}")
        elif action == "child":
            import subprocess

            subprocess.Popen(["sleep", "300"])
        elif action == "print":
            print("x" * 100_000)
        elif action == "flood":
            for _ in range(200_000):
                print("y" * 100)
        elif action == "abort":
            os.abort()
        elif action == "stop":
            import signal

            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "orphan":
            import signal

            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(300)
        elif action == "close":
            os.closerange(3, 256)
        elif action == "reuse":
            os.closerange(3, 256)
            for number in range(3, 20):
                os.open(f"file{number}", os.O_RDWR | os.O_CREAT)
        elif action in ("forge", "steal", "scribble"):
            meddle(action)
        elif action == "daemon":
            return features["x"] * 0 + daemon()
        elif action == "bomb":
            bomb()
        elif action == "kept":
            if os.fork() == 0:
                time.sleep(300)
                os._exit(0)
            time.sleep(300)
        elif action == "double":
            os.fork()  # both return
        elif action == "many":
            for _ in range(6):  # 64 processes
                os.fork()
            time.sleep(300)
        elif action == "leak":
            leaked.append(bytearray(os.urandom(1 << 10) * (20 << 10)))
        elif action == "pid":
            return features["x"] * 0 + os.getpid()
        return features["x"]

    leaked = []

    def daemon():
        """The number of a process that nobody's parent is, in a session of its own."""
        reads, writes = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writes, str(os.getpid()).encode())
                time.sleep(300)
            os._exit(0)
        return int(os.read(reads, 20))

    def bomb():
        """Forks, and has what it forks go on forking, each in a session of its own: 1,000 processes."""
        counted = os.open("bomb", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        while os.fstat(counted).st_size < 1000:
            os.write(counted, b".")
            if os.fork() == 0:
                os.setsid()
        time.sleep(300)

    def meddle(action):
        """Goes on after the call: writes to, or reads from, what is open, whosever it is."""
        import stat
        import threading

        def go_on():
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                for number in range(3, 40):
                    try:
                        is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
                        if action == "forge" and is_socket:
                            os.write(number, b"MEw2" + bytes(28))
                        elif action == "steal" and is_socket:
                            os.set_blocking(number, False)
                            os.read(number, 1000)
                        elif action == "scribble" and not is_socket:
                            os.pwrite(number, os.urandom(64), 64)
                    except OSError:
                        continue

        threading.Thread(target=go_on, daemon=True).start()

    import pandas as pd

    return save(naughty, pd.DataFrame({"action": ["none"] * 4, "x": [0.0, 1.0, 2.0, 3.0]}))


def halving():
    """Row-wise; two rows out of a thousand are poison: one raises, one kills."""
    import pandas as pd

    def halving(features):
        x = features["x"]
        if (x == 137.0).any():
            raise ValueError("137")
        if (x == 731.0).any():
            os.abort()
        return x / 2

    return save(halving, pd.DataFrame({"x": [float(value) for value in range(20)]}))


def poisonous():
    """Row-wise, doubles `x`; by its `action` a row is poison: it raises, kills its worker, never ends."""
    import pandas as pd

    def poisonous(features):
        actions = set(features["action"])
        if len(actions) > 1:
            print("poison among others:", *sorted(actions - {"none"}), flush=True)
        if "raise" in actions:
            raise ValueError("poison")
        if "segfault" in actions:
            import ctypes

            ctypes.string_at(0)
        while "hang" in actions:
            pass
        time.sleep(0.002)
        return features["x"] * 2

    return save(poisonous, pd.DataFrame({"action": ["none"] * 20, "x": [float(x) for x in range(20)]}))


def steady():
    """Row-wise; takes 20 ms for a call of however many rows."""
    import pandas as pd

    def steady(features):
        time.sleep(0.02)
        return features["x"] * 2

    return save(steady, pd.DataFrame({"x": [float(x) for x in range(20)]}))


def alone():
    """Has loaded what does not outlive a fork; goes on for ever where `x` is negative."""
    import pandas as pd

    class Bound:
        def __init__(self):
            self.process = os.getpid()

        def __reduce__(self):
            return Bound, ()

    bound = Bound()

    def alone(features):
        if bound.process != os.getpid():
            os.abort()
        while (features["x"] < 0).any():
            pass
        return features["x"]

    return save(alone, pd.DataFrame({"x": [0.0, 1.0, 2.0]}))


def plain():
    """No pandas, no numpy: a list of dicts in, a list out."""

    def plain(rows):
        return [row["a"] + len(row["s"]) for row in rows]

    return save(plain, [{"a": 1, "s": "x"}, {"a": 2, "s": "yy"}])


def sklearn_pipeline():
    """A real pipeline: scaled numbers and encoded texts into boosted trees."""
    import numpy as np
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    sample = frame(500)
    columns = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["colour"]))
    model = make_pipeline(columns, HistGradientBoostingRegressor(max_iter=20))
    model.fit(sample, np.sin(sample["a"]) + sample["b"])

    def sklearn_pipeline(features):
        return model.predict(features)

    return save(sklearn_pipeline, sample[["a", "b", "colour"]])


def put(envelope, target):
    """All at once: tests in other processes may be looking for it."""
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(target), delete=False) as file:
        shutil.copyfile(envelope.path, file.name)
    os.replace(file.name, target)


if __name__ == "__main__":
    put(globals()[sys.argv[1]](), sys.argv[2])
