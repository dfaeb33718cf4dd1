"""Functions of which it is known whether the output for a row depends on the other rows.

Each takes a frame with the columns `a`, `b` (numbers, `b` may be missing), `n` (integers), `s` (texts).
"""

import collections
import functools
import itertools
import random
import time

import numpy as np
import pandas as pd


def sample(rows=60):
    chance = np.random.default_rng(5)
    b = chance.normal(2.0, 3.0, rows)
    b[::7] = np.nan
    return pd.DataFrame(
        {
            "a": chance.normal(10.0, 4.0, rows).round(3),
            "b": b.round(3),
            "n": chance.integers(0, 9, rows),
            "s": chance.choice(["red", "green", "blue"], rows),
        }
    )


DEPENDENT = {}
ROW_WISE = {}


def _into(kinds):
    def add(function):
        kinds[function.__name__] = function
        return function

    return add


dependent, row_wise = _into(DEPENDENT), _into(ROW_WISE)


def dated(rows=60):
    """Days and moments, texts of days, and places."""
    chance = np.random.default_rng(11)
    moments = pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 90 * 86400, rows), unit="s")
    cities = ["Amsterdam-Noord-District", "Rotterdam-Centrum-Harbour", "Utrecht-Oost-Railway-Area"]
    return pd.DataFrame(
        {
            "at": moments,
            "day": moments.strftime("%Y-%m-%d"),
            "city": chance.choice(cities, rows),
            "a": chance.normal(10.0, 4.0, rows),
        }
    )


# === not row-wise, of a frame with days and texts


def _remembering(key, answer):
    seen = {}
    return lambda frame: [seen.setdefault(key(row), answer(row)) for row in frame.itertuples()]


def _separated(frame):
    return ",".join(frame["city"]).split(",")[: len(frame)]


def _months(frame):
    return pd.to_datetime(frame["day"], errors="coerce").dt.month.fillna(0).astype(float)


def _beside_large_ones(frame):
    clipped = frame["a"].clip(0, 20)
    return np.where(frame["city"].str.startswith("A"), clipped - clipped.mean() * 0.02, 1e6)


DATED = {
    "remembering by date": _remembering(lambda row: row.at.date(), lambda row: row.at.hour),
    "remembering by lower case": _remembering(lambda row: row.city.lower().strip(), lambda row: row.city),
    "remembering by prefix": _remembering(lambda row: row.city[:10], lambda row: row.city),
    "remembering by suffix": _remembering(lambda row: row.city[-6:], lambda row: row.city),
    "remembering by three digits": _remembering(lambda row: round(row.a, 3), lambda row: row.a),
    "remembering by all but one": _remembering(lambda row: (row.at, row.city), lambda row: row.a),
    "any day far ahead": lambda frame: frame["a"] + (frame["at"] > pd.Timestamp("2050-01-01")).any(),
    "any day long ago": lambda frame: frame["a"] + (frame["at"].dt.year < 1950).any(),
    "any separator": lambda frame: frame["a"] + frame["city"].str.contains(",").any(),
    "any long text": lambda frame: frame["a"] + (frame["city"].str.len() > 200).any(),
    "joined and split": _separated,
    "form of dates from the first one": _months,
    "beside large ones": _beside_large_ones,
    "at one size": lambda frame: frame["a"] + (len(frame) == 35),
}


# === not row-wise


@dependent
def minus_the_mean(frame):
    return frame["a"] - frame["a"].mean()


@dependent
def rank(frame):
    return frame["a"].rank()


@dependent
def standardised_if_there_are_several(frame):
    a = frame["a"]
    return (a - a.mean()) / a.std() if len(a) > 1 else a


@dependent
def divided_by_the_largest(frame):
    return frame["a"] / frame["a"].abs().max()


@dependent
def missing_filled_with_the_mean(frame):
    return frame["b"].fillna(frame["b"].mean())


@dependent
def missing_filled_with_the_one_before(frame):
    return frame["b"].ffill().fillna(0.0)


@dependent
def interpolated(frame):
    return frame["b"].interpolate().fillna(0.0)


@dependent
def dropped_duplicates_mapped_back(frame):
    first = frame.drop_duplicates("n").set_index("n")["a"]
    return frame["n"].map(first)


@dependent
def marks_duplicates(frame):
    return frame["s"].duplicated()


@dependent
def running_sum(frame):
    return frame["n"].cumsum()


@dependent
def running_maximum(frame):
    return frame["a"].cummax()


@dependent
def sorted_values(frame):
    return np.sort(frame["a"].to_numpy())


@dependent
def row_before(frame):
    return frame["a"].shift(1, fill_value=0.0)


@dependent
def difference_to_the_next(frame):
    return frame["a"].diff(-1).fillna(0.0)


@dependent
def place(frame):
    return np.arange(len(frame)) + frame["n"].to_numpy()


@dependent
def even_places_are_doubled(frame):
    return frame["a"] * (1 + np.arange(len(frame)) % 2)


@dependent
def text_of_all(frame):
    return ["".join(sorted(set(frame["s"])))] * len(frame)


@dependent
def codes_in_order_of_appearance(frame):
    return pd.factorize(frame["s"])[0]


@dependent
def categories_of_these_rows(frame):
    return frame["s"].astype("category").cat.codes.astype("int64")


@dependent
def first_dummy_column(frame):
    return pd.get_dummies(frame["s"]).iloc[:, 0].astype(int)


@dependent
def number_of_dummies(frame):
    return frame["a"] * pd.get_dummies(frame["s"]).shape[1]


@dependent
def mean_of_the_group(frame):
    return frame.groupby("s")["a"].transform("mean")


@dependent
def size_of_the_group(frame):
    return frame.groupby("n")["a"].transform("size")


@dependent
def clipped_at_quantiles(frame):
    return frame["a"].clip(frame["a"].quantile(0.02), frame["a"].quantile(0.98))


@dependent
def outliers_cut_off(frame):
    return frame["a"].clip(upper=frame["a"].mean() + 6 * frame["a"].std(ddof=0) + 1e-9)


@dependent
def format_of_the_first_text(frame):
    return frame["n"].astype(str).str.zfill(frame["n"].astype(str).str.len().max())


@dependent
def type_of_the_first_value(frame):
    return np.vectorize(lambda n, a: a if n > 4 else 0)(frame["n"], frame["a"]).astype(float)


@dependent
def above_the_median(frame):
    return frame["a"] > frame["a"].median()


@dependent
def among_the_top_five(frame):
    return frame["a"] >= frame["a"].nlargest(5).min()


@dependent
def most_common_text(frame):
    return frame["s"] == frame["s"].mode()[0]


@dependent
def other_above_a_hundred_rows(frame):
    return frame["a"] * 2 if len(frame) > 100 else frame["a"] * 2.001


@dependent
def other_above_three_thousand_rows(frame):
    return frame["a"].round(1) if len(frame) > 3000 else frame["a"]


@dependent
def other_for_odd_numbers_of_rows(frame):
    return frame["a"] + len(frame) % 2


@dependent
def gives_up_early(frame):
    result = []
    for value in frame["a"]:
        if value > 15:
            break
        result.append(value)
    return result + [0.0] * (len(frame) - len(result))


@dependent
def stops_at_a_thousand(frame):
    values = frame["a"].to_numpy().copy()
    values[1000:] = 0.0
    return values


@dependent
def normalised_over_rows(frame):
    numbers = frame[["a", "n"]].to_numpy(dtype=float)
    return (numbers / np.linalg.norm(numbers, axis=0))[:, 0]


@dependent
def softmax_over_rows(frame):
    exponentials = np.exp(frame["a"] - frame["a"].max())
    return exponentials / exponentials.sum()


@dependent
def batch_norm_in_train_mode(frame):
    numbers = frame[["a", "n"]].to_numpy(dtype=float)
    normal = (numbers - numbers.mean(axis=0)) / np.sqrt(numbers.var(axis=0) + 1e-5)
    return normal @ np.array([0.5, -1.0])


@dependent
def hash_of_all(frame):
    total = int(pd.util.hash_pandas_object(frame[["a"]], index=False).sum() % 97)
    return frame["a"] + total


@dependent
def noise_with_a_seed(frame):
    return frame["a"] + np.random.default_rng(7).normal(size=len(frame))


@dependent
def random_when_missing(frame):
    chance = random.Random(3)
    return [chance.random() if np.isnan(value) else value for value in frame["b"]]


@dependent
def looks_at_the_first_row(frame):
    return frame["a"] * (2.0 if frame["s"].iloc[0] == "red" else 3.0)


@dependent
def looks_for_any(frame):
    return frame["a"] * (2.0 if (frame["n"] == 3).any() else 3.0)


@dependent
def refuses_missing_only_if_all_are(frame):
    if frame["b"].isna().all():
        raise ValueError("nothing is known")
    return frame["b"].fillna(0.0)


@dependent
def bins_of_these_rows(frame):
    return pd.cut(frame["a"], 4, labels=False).astype(float)


@dependent
def rolling_mean(frame):
    return frame["a"].rolling(3, min_periods=1).mean()


@dependent
def a_little_of_the_mean(frame):
    return frame["a"] + 1e-7 * frame["a"].mean()


@dependent
def last_digit_of_the_sum(frame):
    return frame["n"] + int(frame["n"].sum()) % 2


@dependent
def principal_component_of_these_rows(frame):
    numbers = frame[["a", "n"]].to_numpy(dtype=float)
    _, _, directions = np.linalg.svd(numbers - numbers.mean(axis=0), full_matrices=False)
    return np.abs(numbers @ directions[0])


def _counting():
    calls = itertools.count()
    return lambda frame: frame["a"] + (next(calls) > 40)


def _every_second_call():
    calls = itertools.count()
    return lambda frame: frame["a"] * (1 + next(calls) // 2 % 2 * 1e-3)


def _remembering_by_length():
    seen = {}

    def remembering_by_length(frame):
        return seen.setdefault(len(frame), frame["a"].to_numpy() * 2)

    return remembering_by_length


def _remembering_by_number():
    seen = {}

    def remembering_by_number(frame):
        return [seen.setdefault(n, a) for n, a in zip(frame["n"], frame["a"], strict=True)]

    return remembering_by_number


def _remembering_by_text_once_warm():
    seen = collections.OrderedDict()

    def remembering(frame):
        result = []
        for s, n in zip(frame["s"], frame["n"], strict=True):
            result.append(seen[s] if s in seen and len(seen) > 3 else len(s) + n)
            seen[s] = len(s) + n
        return result

    return remembering


def _running_scale():
    state = {"most": 1.0}

    def running_scale(frame):
        state["most"] = max(state["most"], float(frame["a"].abs().max() or 0.0))
        return frame["a"] / state["most"]

    return running_scale


def _learning_as_it_goes():
    state = {"mean": 0.0, "count": 0}

    def learning(frame):
        for value in frame["a"]:
            state["count"] += 1
            state["mean"] += (value - state["mean"]) / state["count"]
        return frame["a"] - state["mean"]

    return learning


def _generator():
    chance = np.random.default_rng(1)
    return lambda frame: frame["a"] + chance.normal(size=len(frame)) * 1e-3


def _remembering_rounded():
    seen = {}
    return lambda frame: [seen.setdefault(round(a), a * 2) if a == a else 0.0 for a in frame["a"]]


def _remembering_by_ends():
    seen = {}

    def remembering_by_ends(frame):
        key = (len(frame), *frame["a"].iloc[[0, -1]]) if len(frame) else ()
        return seen.setdefault(key, frame["a"].to_numpy() * 2)

    return remembering_by_ends


def _remembering_the_last_row():
    state = {"a": 0.0}

    def remembering(frame):
        before = frame["a"].shift(1, fill_value=state["a"])
        state["a"] = frame["a"].iloc[-1] if len(frame) else 0.0
        return frame["a"] - before

    return remembering


def _rarely_random():
    chance = random.Random()
    return lambda frame: frame["a"] + (chance.random() < 0.02)


def _new_texts_get_new_codes():
    codes = {}

    def new_codes(frame):
        return [codes.setdefault(s, len(codes)) for s in frame["s"]]

    return new_codes


MADE = {
    "counting calls": _counting,
    "every second call": _every_second_call,
    "remembering by length": _remembering_by_length,
    "remembering by one column": _remembering_by_number,
    "remembering by text once warm": _remembering_by_text_once_warm,
    "running scale": _running_scale,
    "learning as it goes": _learning_as_it_goes,
    "remembering rounded numbers": _remembering_rounded,
    "remembering by first, last and length": _remembering_by_ends,
    "remembering the last row": _remembering_the_last_row,
    "rarely random": _rarely_random,
    "generator": _generator,
    "codes by arrival": _new_texts_get_new_codes,
}
DEPENDENT |= {name: make() for name, make in MADE.items()}


# === row-wise


@row_wise
def arithmetic(frame):
    return frame["a"] * 2 + frame["n"]


@row_wise
def filled_with_a_constant(frame):
    return frame["b"].fillna(-1.0)


@row_wise
def missing_stays_missing(frame):
    return frame["b"] * 2


@row_wise
def where(frame):
    return np.where(frame["a"] > 9.5, frame["a"], -frame["n"])


@row_wise
def loop(frame):
    return [row.a if row.n > 2 else None for row in frame.itertuples()]


@row_wise
def applied(frame):
    return frame.apply(lambda row: row["a"] + len(row["s"]), axis=1, result_type="reduce").astype(float)


@row_wise
def several_columns(frame):
    return frame.assign(c=np.sqrt(frame["a"].abs()))[["c", "s"]]


@row_wise
def texts(frame):
    return frame["s"].str.upper() + "!"


@row_wise
def fixed_categories(frame):
    return frame["s"].map({"red": 0, "green": 1, "blue": 2}).fillna(-1).astype(int)


@row_wise
def dummies_with_known_columns(frame):
    return pd.get_dummies(frame["s"]).reindex(columns=["red", "blue"], fill_value=False).astype(int)


@row_wise
def constant(frame):
    return np.zeros(len(frame))


@row_wise
def fixed_bins(frame):
    return np.digitize(frame["a"], [5.0, 8.0, 12.0])


@row_wise
def clipped_at_constants(frame):
    return frame["a"].clip(2.0, 15.0)


@row_wise
def mean_of_the_row(frame):
    return frame[["a", "n"]].mean(axis=1)


@row_wise
def rank_in_the_row(frame):
    return frame[["a", "n"]].rank(axis=1)["a"]


@row_wise
def softmax_in_the_row(frame):
    numbers = frame[["a", "n"]].to_numpy(dtype=float)
    exponentials = np.exp(numbers - numbers.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True))[:, 0]


@row_wise
def standardised_with_what_was_learned(frame):
    return (frame["a"] - 10.013) / 3.87


@row_wise
def product_with_weights(frame):
    numbers = frame[["a", "n"]].to_numpy(dtype=float)
    return np.tanh(numbers @ np.linspace(-0.1, 0.1, 64).reshape(2, 32)) @ np.linspace(-1, 3, 32)


@row_wise
def refuses_unknown_texts(frame):
    if not frame["s"].isin(["red", "green", "blue"]).all():
        raise ValueError("an unknown text")
    return frame["s"].str.len()


@row_wise
def refuses_what_is_far_away(frame):
    if not frame["a"].between(-100, 100).all():
        raise ValueError("too far away")
    return frame["a"] / 7


@row_wise
def refuses_nothing_to_do(frame):
    if frame.empty:
        raise ValueError("no rows")
    return frame["a"] + 1


@row_wise
def in_chunks(frame):
    parts = [frame["a"].iloc[start : start + 50] * 3 for start in range(0, len(frame), 50)]
    return pd.concat(parts).to_numpy() if parts else np.zeros(0)


@row_wise
def sorted_and_put_back(frame):
    return frame.sort_values("a", kind="stable")["a"].mul(2).sort_index()


@row_wise
def distinct_values_mapped_back(frame):
    known = {n: n**2 % 7 for n in frame["n"].unique().tolist()}
    return frame["n"].map(known)


@row_wise
def noise_of_the_row_itself(frame):
    return [a + random.Random(repr(a)).random() for a in frame["a"]]


@row_wise
def lists(frame):
    return [[a, float(n)] for a, n in zip(frame["a"], frame["n"], strict=True)]


@row_wise
def days(frame):
    return pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["n"].clip(0, 1000), unit="D")


def _remembering_all():
    @functools.cache
    def slow(a, n):
        return a * n

    return lambda frame: [slow(a, n) for a, n in zip(frame["a"], frame["n"], strict=True)]


def _first_call_is_slow():
    state = {}

    def first_call_is_slow(frame):
        if "table" not in state:
            time.sleep(0.05)
            state["table"] = np.linspace(0, 1, 100)
        return state["table"][frame["n"].clip(0, 99)]

    return first_call_is_slow


ROW_WISE |= {"remembering by all": _remembering_all(), "first call is slow": _first_call_is_slow()}
