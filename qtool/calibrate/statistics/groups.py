"""Which rows are resampled together, and which tokens are looked at whole: decided before the pass, by seed alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from qtool.calibrate.statistics.inputs import SAMPLED_TOKENS, Group
from qtool.data.sequences import TokenSequence

GROUPS_A_TAG = 64  # of calibration rows; fewer rows than that are groups of one


def make_groups(sequences: Sequence[TokenSequence], *, seed: int) -> tuple[Group, ...]:
    """Groups of the rows in random order, calibration groups before held-out ones; `index` is the place.

    A prefix of the calibration groups is a smaller sample of the same mix.
    """
    parts: dict[tuple[str, bool], list[int]] = {}
    for row, sequence in enumerate(sequences):
        parts.setdefault((sequence.tag, sequence.held_out), []).append(row)
    chunks = [
        (tag, held_out, tuple(rows[start : start + size]))
        for (tag, held_out), rows in parts.items()
        if (size := -(-len(rows) // GROUPS_A_TAG))
        for start in range(0, len(rows), size)
    ]
    order = np.random.default_rng([seed, 1]).permutation(len(chunks))
    shuffled = sorted((chunks[place] for place in order), key=lambda chunk: chunk[1])
    return tuple(Group(index, tag, held_out, rows) for index, (tag, held_out, rows) in enumerate(shuffled))


def draw_tokens(sequences: Sequence[TokenSequence], *, seed: int) -> Mapping[int, Mapping[int, float]]:
    """Row -> token position -> draw, for the SAMPLED_TOKENS calibration tokens with the smallest draws."""
    generator = np.random.default_rng([seed, 2])
    rows, places, draws = (np.zeros(0, kind) for kind in (np.int64, np.int64, np.float64))
    for row, sequence in enumerate(sequences):
        drawn = generator.random(len(sequence.tokens))
        if sequence.held_out:
            continue  # its draws were made all the same, so that a held-out row changes no other row's
        # only what can still be among the smallest is kept: memory must not grow with the tokens
        small = np.argsort(drawn, kind="stable")[:SAMPLED_TOKENS]
        rows = np.append(rows, np.full(len(small), row))
        places, draws = np.append(places, small), np.append(draws, drawn[small])
        kept = np.argsort(draws, kind="stable")[:SAMPLED_TOKENS]
        rows, places, draws = rows[kept], places[kept], draws[kept]
    found: dict[int, dict[int, float]] = {}
    for index in np.lexsort((places, rows)):
        found.setdefault(int(rows[index]), {})[int(places[index])] = float(draws[index])
    return found
