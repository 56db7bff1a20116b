"""Is the ship test right as often as it claims? Simulated variants of known truth, put through qtool's own test.

    python benchmarks/verdicts.py [--part NAME ...] [--simulations 10000] [--seed 0] [--json FILE]

For each churn, number of items and margin: how often a variant whose true drop is exactly the margin is passed (must be
at most 5 %), how often one that is truly equal is passed (the power), and how often one that truly loses twice the
margin is failed. Then the same for `--until-decided`, which looks several times. The other parts do so for users who
follow the printed advice, for items in clusters, for scores that are no yes or no, and for perplexity.
"""

import argparse
import functools
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from verdict_simulations import bounds, clustered, followed, pooled, scored, texts

from qtool.evaluate.items import tasks
from qtool.evaluate.verdicts import power, sequential, verdict

CHURNS = (0.01, 0.02, 0.03, 0.05, 0.10, 0.20)
ITEMS = (100, 200, 500, 1000, 2000, 5000)
MARGINS = (0.01, 0.02, 0.03, 0.05)


def shares(
    rng: np.random.Generator, *, churn: float, items: int, drop: float, margin: float, simulations: int
) -> dict[str, float]:
    """Share of each verdict over simulated samples of a variant that truly loses `drop`."""
    worse, better = (churn + drop) / 2, (churn - drop) / 2
    counts = rng.multinomial(items, [worse, better, 1 - churn], size=simulations)
    pairs, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    found = dict.fromkeys(("PASS", "FAIL", "UNDECIDED"), 0.0)
    for (harmful, beneficial), count in zip(pairs.tolist(), times.tolist(), strict=True):
        name = verdict.decide(bounds(items, harmful, beneficial, verdict.LEVEL), margin)
        found[name] += count / simulations
    return found


def sequential_shares(
    rng: np.random.Generator, sizes: tuple[int, ...], *, churn: float, drop: float, margin: float, simulations: int
) -> dict[str, float]:
    """The same where the test looks after each of `sizes` items and stops when it is decided; with the mean items."""
    worse, better = (churn + drop) / 2, (churn - drop) / 2
    levels = sequential.look_levels(sizes)
    steps = np.diff((0, *sizes))
    found = dict.fromkeys(("PASS", "FAIL", "UNDECIDED", "mean items"), 0.0)
    for _ in range(simulations):
        harmful = beneficial = 0
        name, seen = "UNDECIDED", sizes[-1]
        for size, step, level in zip(sizes, steps, levels, strict=True):
            drawn = rng.multinomial(step, [worse, better, 1 - churn])
            harmful, beneficial = harmful + int(drawn[0]), beneficial + int(drawn[1])
            name, seen = verdict.decide(bounds(size, harmful, beneficial, level), margin), size
            if name != "UNDECIDED":
                break
        found[name] += 1 / simulations
        found["mean items"] += seen / simulations
    return found


def table(title: str, columns: tuple[str, ...]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def one_look(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """Right or wrong items, a single look."""
    error = 100 * np.sqrt(0.05 * 0.95 / simulations)
    title = f"One look ({simulations} simulations a cell; a 5 % share is known to {error:.2f} points, 1 sd)"
    table(title, ("churn %", "items", "margin", "false PASS % at the margin", "false FAIL %", "PASS % when equal",
                  "FAIL % at 2 x"))  # fmt: skip
    rows: list[dict[str, object]] = []
    worst: list[tuple[float, str]] = []
    for churn, items, margin in itertools.product(CHURNS, ITEMS, MARGINS):
        if margin > churn:
            continue  # a drop larger than the churn cannot be
        cell = functools.partial(shares, rng, churn=churn, items=items, margin=margin, simulations=simulations)
        edge, equal = cell(drop=margin), cell(drop=0.0)
        double = cell(drop=2 * margin) if 2 * margin <= churn else None
        rows.append({"churn": churn, "items": items, "margin": margin, "edge": edge, "equal": equal, "double": double})
        worst.append((edge["PASS"], f"churn {churn}, n {items}, margin {margin}"))
        failed = "" if double is None else percent(double["FAIL"])
        print(
            f"| {100 * churn:g} | {items} | {100 * margin:g} | {100 * edge['PASS']:.2f} | {100 * edge['FAIL']:.2f} "
            f"| {percent(equal['PASS'])} | {failed} |"
        )
    print("\nworst false PASS: " + "; ".join(f"{100 * share:.2f} % at {where}" for share, where in sorted(worst)[-5:]))
    return rows


def until_decided(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """The schedule that a stated limit gives."""
    sizes = sequential.look_sizes(500, 5000)
    table("`--until-decided 5000`, looking at 500, 1000, 2000, 4000, 5000 items, margin 2",
          ("churn %", "true drop", "PASS %", "FAIL %", "undecided %", "items on average"))  # fmt: skip
    rows: list[dict[str, object]] = []
    for churn, drop in itertools.product((0.05, 0.10, 0.20), (0.0, 0.01, 0.02, 0.04)):
        found = sequential_shares(rng, sizes, churn=churn, drop=drop, margin=0.02, simulations=simulations // 5)
        rows.append({"churn": churn, "drop": drop, **found})
        three = " | ".join(percent(found[name]) for name in ("PASS", "FAIL", "UNDECIDED"))
        print(f"| {100 * churn:g} | {100 * drop:g} | {three} | {found['mean items']:.0f} |")
    return rows


def following(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """Users who do what an UNDECIDED line says, up to five times."""
    table("Following the printed advice, again and again",
          ("churn %", "margin", "first items", "false PASS % at the margin", "false FAIL %", "PASS % when equal",
           "decided at the first number advised, % when equal"))  # fmt: skip
    rows: list[dict[str, object]] = []
    for churn, margin, first in ((0.02, 0.02, 250), (0.05, 0.02, 250), (0.05, 0.02, 100), (0.05, 0.05, 164),
                                 (0.10, 0.03, 250), (0.20, 0.02, 250)):  # fmt: skip
        cell = functools.partial(followed, rng, churn=churn, margin=margin, first=first)
        edge, equal = cell(drop=margin, simulations=simulations // 5), cell(drop=0.0, simulations=simulations // 20)
        rows.append({"churn": churn, "margin": margin, "first": first, "edge": edge, "equal": equal})
        print(
            f"| {100 * churn:g} | {100 * margin:g} | {first} | {percent(edge['PASS'])} | {percent(edge['FAIL'])} "
            f"| {percent(equal['PASS'])} | {percent(equal['decided as advised'])} |"
        )
    return rows


def clusters(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """Items that hang together."""
    table("Items in clusters (alike: correlation of flips within one; 1: lost as a whole)",
          ("clusters x items", "alike", "churn %", "margin", "false PASS % at the margin", "false FAIL %",
           "PASS % when equal"))  # fmt: skip
    rows: list[dict[str, object]] = []
    for (count, size), alike, (churn, margin) in itertools.product(
        ((9, 100), (10, 25), (60, 20), (150, 10), (400, 5)),
        (0.0, 0.1, 0.5, 1.0),
        ((0.10, 0.05), (0.05, 0.05), (0.02, 0.02)),
    ):
        cell = functools.partial(clustered, rng, clusters=count, size=size, alike=alike, churn=churn, margin=margin)
        edge, equal = cell(drop=margin, simulations=simulations // 10), cell(drop=0.0, simulations=simulations // 50)
        rows.append({"clusters": count, "size": size, "alike": alike, "churn": churn, "edge": edge, "equal": equal})
        print(
            f"| {count} x {size} | {alike:g} | {100 * churn:g} | {100 * margin:g} | {percent(edge['PASS'])} "
            f"| {percent(edge['FAIL'])} | {percent(equal['PASS'])} |"
        )
    return rows


def scores(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """Scores that are no yes or no."""
    table("Scores between 0 and 1",
          ("kind", "items", "margin", "false PASS % at the margin", "false FAIL %", "PASS % when equal"))  # fmt: skip
    rows: list[dict[str, object]] = []
    for kind, (items, margin) in itertools.product(
        ("losses of 0.95", "losses of 0.5", "one fraction among right or wrong", "fields of five", "like ROUGE"),
        ((250, 0.05), (250, 0.02), (1000, 0.02)),
    ):
        few = simulations // (100 if kind == "like ROUGE" else 10 if kind == "fields of five" else 1)
        cell = functools.partial(scored, rng, kind=kind, items=items, margin=margin)
        edge, equal = cell(drop=margin, simulations=few), cell(drop=0.0, simulations=max(10, few // 5))
        rows.append({"kind": kind, "items": items, "margin": margin, "edge": edge, "equal": equal})
        three = " | ".join(percent(share) for share in (edge["PASS"], edge["FAIL"], equal["PASS"]))
        print(f"| {kind} | {items} | {100 * margin:g} | {three} |")
    return rows


def perplexities(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """Running text, 2 % more perplexity accepted."""
    table("Perplexity, 2 % accepted",
          ("losses", "texts", "false PASS % at the margin", "false FAIL %", "PASS % when equal"))  # fmt: skip
    rows: list[dict[str, object]] = []
    for kind, items in itertools.product(
        ("all alike", "exponential", "one text in 20 carries it", "one in 50", "one in 100"), (10, 30, 100, 400, 1000)
    ):
        few = simulations // (100 if kind in ("all alike", "exponential") else 1)
        cell = functools.partial(texts, rng, kind=kind, items=items)
        edge, equal = cell(drop=np.log1p(0.02), simulations=few), cell(drop=0.0, simulations=max(10, few // 10))
        rows.append({"kind": kind, "texts": items, "edge": edge, "equal": equal})
        three = " | ".join(percent(share) for share in (edge["PASS"], edge["FAIL"], equal["PASS"]))
        print(f"| {kind} | {items} | {three} |")
    return rows


def powers(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """What `qtool eval` tells before a run, beside simulated runs of it."""
    table("Told before the run: an equal variant, 1 % of answers changed, passes all 8 tasks",
          ("items", "margin", "told %", "simulated %", "chance for one task %"))  # fmt: skip
    rows: list[dict[str, object]] = []
    level = sequential.FIRST_SHARE * verdict.LEVEL
    for items, margin in itertools.product((250, 400, 500, 750, 1000, 2000), (0.02, 0.03)):
        counts = rng.multinomial(items, [0.005, 0.005, 0.99], size=(simulations // 8, 8))
        passed = [
            all(verdict.decide(bounds(items, int(h), int(b), level), margin) == "PASS" for h, b, _ in run)
            for run in counts
        ]
        told = power.chance_to_pass_all([power.Question(items, margin)] * 8)
        one = power.chance_to_pass(items, margin)
        rows.append({"items": items, "margin": margin, "told": told, "simulated": float(np.mean(passed))})
        print(f"| {items} | {100 * margin:g} | {percent(told)} | {percent(float(np.mean(passed)))} | {percent(one)} |")
    shipped = [tasks.load_task(name) for name in tasks.task_names()]
    generated = [power.Question(task.items, task.margin_points / 100) for task in shipped if task.generator]
    every = [power.Question(task.items, task.margin_points / 100) for task in shipped if task.scorer != "rolling"]
    for name, several in (("generated", generated), ("shipped", every)):
        print(f"\nall {len(several)} {name} tasks with their own items and margins: "
              f"{percent(power.chance_to_pass_all(several))} %")  # fmt: skip
    return rows


def pools(rng: np.random.Generator, simulations: int) -> list[dict[str, object]]:
    """The pooled row."""
    table(
        "All tasks together: got worse at 5 %, share of samples", ("tasks x items", "churn %", "true drop", "found %")
    )
    rows: list[dict[str, object]] = []
    for (count, items), churn, drop in itertools.product(((8, 250), (8, 2000)), (0.02, 0.05), (0.0, 0.005, 0.01)):
        found = pooled(rng, tasks=count, items=items, churn=churn, drop=drop, simulations=simulations)
        rows.append({"tasks": count, "items": items, "churn": churn, "drop": drop, "found": found})
        print(f"| {count} x {items} | {100 * churn:g} | {100 * drop:g} | {percent(found)} |")
    return rows


PARTS = {
    "one-look": one_look,
    "until-decided": until_decided,
    "following": following,
    "clusters": clusters,
    "scores": scores,
    "perplexity": perplexities,
    "power": powers,
    "pooled": pools,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for name in options.part or PARTS:  # each part from the seed, so that one alone gives what all together give
        found[name] = PARTS[name](np.random.default_rng(options.seed), options.simulations)
        sys.stdout.flush()
    if options.json is not None:
        options.json.write_text(json.dumps({"simulations": options.simulations, **found}, indent=1))


if __name__ == "__main__":
    main()
