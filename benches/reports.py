"""Tables and goals of the online bench, from what was measured in its rounds."""

import statistics

from contestants import OURS, Kind

MICROBATCH = "microbatch"
MANY = (100, 8)


class Rounds:
    """One figure in every round: its median, and how far it went."""

    def __init__(self, values):
        self.values = sorted(values)

    @property
    def median(self):
        return statistics.median(self.values)

    def shown(self, form):
        return f"{self.median:{form}} ({self.values[0]:{form}}–{self.values[-1]:{form}})"


def of(rounds, step, key):
    return Rounds([figures[step][key] for figures in rounds])


def plain(rounds, key):
    return Rounds([figures[key] for figures in rounds])


# === the table


def contest(served, taking_part, figures, beside):
    """Prints what everybody did and which goals are met; gives it as JSON would hold it."""
    ranked = [one for one in taking_part if figures[one.title]]
    print(f"\n  `{served.name}`: median (least–most) of the rounds")
    print_limit(beside)
    for one in ranked:
        print_contestant(one, served, figures[one.title])
    goals = verdicts(served, ranked, figures, beside)
    print_goals(goals)
    return {
        "contestants": {one.title: [as_json(each) for each in figures[one.title]] for one in ranked},
        "in_process_ms": beside["in_process"],
        "bare_start_s": beside["bare_start_s"],
        "goals": goals,
    }


def print_limit(beside):
    calls = {rows: Rounds([each[rows] for each in beside["in_process"]]) for rows in beside["in_process"][0]}
    print(
        "  limit, one core in process    "
        + "   ".join(
            f"{rows} row{'s' if rows > 1 else ''}: {times.shown('.3f')} ms, {rows / times.median * 1e3:,.0f} rows/s"
            for rows, times in calls.items()
        )
    )
    print(f"  bare interpreter has the function after {Rounds(beside['bare_start_s']).shown('.2f')} s")


def print_contestant(one, served, rounds):
    print(f"  {one.title}")
    for rows, callers in served.steps:
        rate, p50, p99, failed = (
            of(rounds, (rows, callers), key) for key in ("per_second", "p50_ms", "p99_ms", "failed")
        )
        each = Rounds([value * rows for value in rate.values])
        unit = "rows/s" if rows > 1 else "calls/s"
        lost = f"   {sum(failed.values):.0f} FAILED" if sum(failed.values) else ""
        print(
            f"    {rows:3} rows, c={callers:<3} {each.shown(',.0f'):>26} {unit:7}  "
            f"p50 {p50.shown('.2f'):>24} ms  p99 {p99.median:8.2f} ms{lost}"
        )
    print(
        f"    memory {plain(rounds, 'pss_mb').shown('.0f')} MB PSS, {plain(rounds, 'rss_mb').shown('.0f')} MB RSS;  "
        f"first answer after {plain(rounds, 'start_s').shown('.2f')} s"
    )


def as_json(figures):
    named = {key: value for key, value in figures.items() if isinstance(key, str)}
    return named | {f"{key[0]} rows, c={key[1]}": value for key, value in figures.items() if key not in named}


# === the goals

AT_64 = {"sk": (2.0, 6.0), "cheap": (2.5, 25.0)}
"""How many times as many calls as the micro-batcher by hand, and as the best product."""
EXTRA_MS = 0.3
MANY_ROWS_RATIO = 2.0
MEMORY_RATIO = 0.6
START_RATIO = 1.15
OVERHEAD_SHARE = 0.4


def verdicts(served, ranked, figures, beside):
    """Each goal that this run can tell: what it asks, what was measured, whether it is met."""
    ours = figures[OURS.title]
    if not ours:
        return []
    products = [one for one in ranked if one.kind is Kind.PRODUCT]
    by_hand = [one for one in ranked if one.name == MICROBATCH]
    ratio_by_hand, ratio_products = AT_64[served.name]
    goals = throughput(ours, by_hand, figures, (1, 64), ratio_by_hand)
    goals += throughput(ours, products, figures, (1, 64), ratio_products)
    if MANY in served.steps:
        goals += throughput(ours, products, figures, MANY, MANY_ROWS_RATIO)
    goals.append(alone(ours, beside["in_process"]))
    goals += least_memory(ours, [one for one in products if one.workers == OURS.workers], figures)
    return [*goals, start(ours, beside["bare_start_s"])]


def throughput(ours, others, figures, step, least):
    if not others:
        return []
    best = max(others, key=lambda one: of(figures[one.title], step, "per_second").median)
    ratios = [
        mine[step]["per_second"] / max(theirs[step]["per_second"], 1.0)
        for mine, theirs in zip(ours, figures[best.title], strict=False)
    ]
    rows, callers = step
    return [at_least(f"{rows} rows, c={callers}: × of {best.title}", ratios, least)]


def alone(ours, in_process):
    extra = [mine[1, 1]["p50_ms"] - calls[1] for mine, calls in zip(ours, in_process, strict=False)]
    return at_most("c=1: p50 in ms over the call in process", extra, EXTRA_MS)


def least_memory(ours, products, figures):
    if not products:
        return []
    best = min(products, key=lambda one: plain(figures[one.title], "rss_mb").median)
    return [
        at_most(
            f"{key[:3].upper()} with 2 workers, × of {best.title}",
            [mine[key] / theirs[key] for mine, theirs in zip(ours, figures[best.title], strict=False)],
            MEMORY_RATIO,
        )
        for key in ("rss_mb", "pss_mb")
    ]


def start(ours, bare):
    ratios = [mine["start_s"] / seconds for mine, seconds in zip(ours, bare, strict=False)]
    return at_most("first answer, × of a bare interpreter that unpickles", ratios, START_RATIO)


def at_least(what, rounds, goal):
    return told(what, rounds, f"≥ {goal}", sum(value >= goal for value in rounds))


def at_most(what, rounds, goal):
    return told(what, rounds, f"≤ {goal}", sum(value <= goal for value in rounds))


def told(what, rounds, goal, met):
    """Each round is a measurement of its own; where they disagree, this machine cannot tell."""
    if 0 < met < len(rounds):
        verdict = f"not settled: met in {met} of {len(rounds)} rounds"
    else:
        verdict = "met" if met else "NOT MET"
    return {"what": what, "rounds": rounds, "goal": goal, "verdict": verdict}


def print_goals(goals):
    for goal in goals:
        print(
            f"  goal: {goal['what']:58} {Rounds(goal['rounds']).shown('.2f'):22} {goal['goal']:7} {goal['verdict']}"
        )


# === the service itself


def overhead(constant, ours):
    print("\n  A function that gives its column back, against hyper with a constant")
    for callers in (1, 16, 64):
        least, mine = (of(constant, callers, "per_second"), of(ours, (1, callers), "per_second"))
        print(
            f"    c={callers:<3} hyper {least.shown(',.0f')} calls/s   envelope serve {mine.shown(',.0f')} calls/s   "
            f"{mine.median / least.median:.0%}"
        )
    cost = of(constant, 64, "client_us").median
    print(
        f"    the client takes {cost:.1f} µs of a core for each call: it could ask {1e6 / cost:,.0f} in a second"
    )
    shares = [
        mine[1, 64]["per_second"] / most[64]["per_second"] for mine, most in zip(ours, constant, strict=True)
    ]
    goals = [at_least("c=64: share of hyper with a constant", shares, OVERHEAD_SHARE)]
    print_goals(goals)
    return {"hyper": constant, "ours": [as_json(each) for each in ours], "goals": goals}
