"""Judges a calibration set by what it did to the ranges: do they settle, and do they hold on rows that made none?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qtool.calibrate.observe import Asked, plugin
from qtool.calibrate.statistics.channels import dead_channels, effective_rank, outlier_channels, tail_index
from qtool.calibrate.statistics.inputs import Group, InputStatistics
from qtool.calibrate.statistics.resample import Groups, bootstrap, groups_of, halves, prefixes
from qtool.calibrate.tags import certify_tags
from qtool.records.certificate import (
    RANGE_TOLERANCE,
    CalibrationVerdict,
    Certificate,
    CurvePoint,
    ExpertTokens,
    HeldOutClip,
    LayerCertificate,
    RangeCertificate,
    TagCertificate,
)
from qtool.records.histogram import clipped_energy, clipped_share

ENERGY_LIMIT = 1e-3  # of the input's energy; rounding to 8 bits costs as much when the range is 14 times the rms
MIX_RATIO = 4.0  # a tag that loses this many times what the calibration rows lose is not like them
_Z = 1.96


def certify(
    inputs: Sequence[InputStatistics],
    reads: Mapping[str, str],
    experts: Mapping[str, NDArray[np.int64]],
    *,
    asked: Sequence[Asked],
    groups: Sequence[Group],
    seed: int,
) -> Certificate:
    """The certificate of one finished pass."""
    used = [group for group in groups if not group.held_out]
    kept_back = [group for group in groups if group.held_out]
    judged = [observer for observer in asked if observer.granularity == "tensor"]
    layers = tuple(
        _layer(entry, tuple(layer for layer in reads if reads[layer] == entry.name), judged, used, kept_back, seed)
        for entry in inputs
    ) + tuple(_never_reached(layer) for layer in sorted(set(experts) - set(reads)))
    tags = certify_tags(inputs, layers, groups, seed=seed)
    layers = tuple(_of_the_mix(layer, {tag.tag for tag in tags if tag.verdict == "wrong_mix"}) for layer in layers)
    starved = _starved(experts, {entry.name: entry.columns for entry in inputs})
    verdict, reason, needed = _overall(layers, tags, starved)
    return Certificate(layers, tags, starved, verdict, reason, needed)


def _layer(
    entry: InputStatistics,
    readers: tuple[str, ...],
    judged: Sequence[Asked],
    used: Sequence[Group],
    kept_back: Sequence[Group],
    seed: int,
) -> LayerCertificate:
    groups = groups_of(entry, used)
    if not len(groups.low):
        return _never_reached(entry.name)
    ranges = tuple(_range(asked, entry, groups, used, kept_back, seed) for asked in judged)
    learned = tuple(found for found in ranges if not found.observer.startswith("fixed"))  # data cannot mend those
    lost = _lost(entry, learned, used)
    verdict, reason, needed = _judge(entry, learned, lost, used, int(groups.rows.sum()))
    return LayerCertificate(
        input=entry.name,
        layers=readers,
        columns=entry.columns,
        tokens=entry.channels.tokens,
        ranges=ranges,
        tail_index=tail_index(entry.histogram(group.index for group in used)),
        effective_rank=effective_rank(entry),
        dead_channels=dead_channels(entry),
        outlier_channels=outlier_channels(entry),
        verdict=verdict,
        reason=reason,
        needed_sequences=needed,
        lost_tags=tuple(sorted({clip.tag for _, clip in lost})),
    )


def _range(
    asked: Asked,
    entry: InputStatistics,
    groups: Groups,
    used: Sequence[Group],
    kept_back: Sequence[Group],
    seed: int,
) -> RangeCertificate:
    curve = tuple(
        CurvePoint(int(groups.rows[places].sum()), groups.high_of(asked, places)) for places in prefixes(groups)
    )
    high = curve[-1].high
    error = bootstrap(asked, groups, seed=seed)
    first, second = halves(groups)
    ratio = groups.high_of(asked, first) / groups.high_of(asked, second) if len(second) and high > 0 else 1.0
    change = abs(high / curve[-2].high - 1) if len(curve) > 1 and curve[-2].high > 0 else 0.0
    tags = sorted({group.tag for group in kept_back})
    held_out = tuple(clip for tag in tags if (clip := _clip(entry, tag, high, kept_back)).values)
    if plugin(asked.name).NEEDS == "bounds":
        # the maximum of a heavy tail never settles; what counts is how much lies beyond it
        converged = all(clip.clipped_energy <= ENERGY_LIMIT for clip in held_out)
    else:
        converged = high == 0 or (_Z * error / high <= RANGE_TOLERANCE and change <= RANGE_TOLERANCE)
    return RangeCertificate(
        observer=asked.key,
        high=high,
        interval_low=max(high - _Z * error, 0.0),
        interval_high=high + _Z * error,
        split_half_ratio=ratio,
        last_doubling_change=change,
        curve=curve,
        nominal_share=1 - asked.number / 100 if asked.name == "percentile" else None,
        held_out=held_out,
        converged=converged,
    )


def _clip(entry: InputStatistics, tag: str, high: float, kept_back: Sequence[Group]) -> HeldOutClip:
    histogram = entry.histogram(group.index for group in kept_back if group.tag == tag)
    return HeldOutClip(
        tag, histogram.values, clipped_share(histogram, -high, high), clipped_energy(histogram, -high, high)
    )


Loss = tuple[RangeCertificate, HeldOutClip]


def _lost(entry: InputStatistics, ranges: Sequence[RangeCertificate], used: Sequence[Group]) -> list[Loss]:
    """Ranges that cut off more of the held-out rows of a tag than they may."""
    return [
        (found, clip)
        for found in ranges
        for clip in found.held_out
        if clip.clipped_energy > _limit(entry, found, clip, used)
    ]


def _judge(
    entry: InputStatistics,
    ranges: Sequence[RangeCertificate],
    lost: Sequence[Loss],
    used: Sequence[Group],
    rows: int,
) -> tuple[CalibrationVerdict, str, int | None]:
    in_mix = {group.tag for group in used}
    lost = [(found, clip) for found, clip in lost if clip.tag in in_mix]  # the others are judged over all inputs
    if lost:
        found, clip = max(lost, key=lambda pair: pair[1].clipped_energy)
        text = f"{found.observer} cuts {clip.clipped_energy:.2g} of the energy of held-out {clip.tag!r}"
        return "more_samples", text, 2 * rows
    needs = [(needed, found) for found in ranges if (needed := _needed(found, rows))]
    if needs:
        needed, found = max(needs, key=lambda pair: pair[0])
        spread = (found.interval_high - found.interval_low) / 2 / found.high if found.high else 0.0
        text = f"{found.observer} is known to ±{spread:.1%}, last doubling {found.last_doubling_change:+.1%}"
        return "more_samples", text, needed
    if entry.channels.tokens < entry.columns:
        needed = math.ceil(rows * entry.columns / max(entry.channels.tokens, 1))
        return "more_samples", f"{entry.channels.tokens} tokens for {entry.columns} columns: GPTQ needs more", needed
    return "enough", "", None


def _of_the_mix(layer: LayerCertificate, uncovered: set[str]) -> LayerCertificate:
    """The same layer, its verdict that of the mix where its ranges cut off traffic that is not covered."""
    cut = sorted(uncovered & set(layer.lost_tags))
    if not cut:
        return layer
    reason = f"its ranges cut off {', '.join(cut)}, of which no row is in the mix"
    return replace(layer, verdict="wrong_mix", reason=reason, needed_sequences=None)


def _limit(entry: InputStatistics, found: RangeCertificate, clip: HeldOutClip, used: Sequence[Group]) -> float:
    """Energy that may be cut off the held-out rows of a tag: a multiple of what is cut off the rows of that tag which
    made the range, or of the worst-off tag for one that made none; an observer that clips on purpose is not blamed."""
    tags = {group.tag for group in used}
    own = max(
        clipped_energy(entry.histogram(group.index for group in used if group.tag == tag), -found.high, found.high)
        for tag in (tags & {clip.tag} or tags)
    )
    return max(ENERGY_LIMIT, MIX_RATIO * own)


def _needed(found: RangeCertificate, rows: int) -> int | None:
    """Rows after which the range should be known well enough: the error falls with their square root."""
    if found.converged:
        return None
    relative = (found.interval_high - found.interval_low) / 2 / found.high if found.high else 0.0
    return max(2 * rows, math.ceil(rows * (relative / RANGE_TOLERANCE) ** 2))


def _never_reached(layer: str) -> LayerCertificate:
    reason = "saw no tokens; calibrate on text that reaches it"
    return LayerCertificate(layer, (layer,), 0, 0, (), None, None, 0, (), "more_samples", reason)


def _starved(experts: Mapping[str, NDArray[np.int64]], columns: Mapping[str, int]) -> tuple[ExpertTokens, ...]:
    """Experts with fewer tokens than twice their columns or half a percent of all: GPTQ does worse there than RTN."""
    found = []
    for module, counts in experts.items():
        needed = max(2 * columns.get(module, 0), math.ceil(0.005 * counts.sum()))
        few = [(number, int(count)) for number, count in enumerate(counts) if count < needed]
        found += [ExpertTokens(module, number, count, needed) for number, count in few]
    return tuple(found)


def _overall(
    layers: Sequence[LayerCertificate],
    tags: Sequence[TagCertificate],
    starved: Sequence[ExpertTokens],
) -> tuple[CalibrationVerdict, str, int | None]:
    missed = [tag for tag in tags if tag.verdict == "wrong_mix"]
    if missed:
        return "wrong_mix", f"not covered: {', '.join(f'{tag.tag} ({tag.reason})' for tag in missed)}", None
    mixed = [layer for layer in layers if layer.verdict == "wrong_mix"]
    if mixed:
        return "wrong_mix", f"{len(mixed)} of {len(layers)} inputs, first {mixed[0].input}: {mixed[0].reason}", None
    few = [tag for tag in tags if tag.verdict == "more_samples"]
    short = [layer for layer in layers if layer.verdict == "more_samples"]
    if short:
        worst = max(short, key=lambda layer: layer.needed_sequences or 0)
        text = f"{len(short)} of {len(layers)} inputs have not settled, worst {worst.input}: {worst.reason}"
        return "more_samples", text, worst.needed_sequences
    if few:
        return "more_samples", f"too few rows of {', '.join(tag.tag for tag in few)}: {few[0].reason}", None
    if starved:
        first = starved[0]
        text = f"{len(starved)} experts saw too few tokens, first {first.module} expert {first.expert} ({first.tokens})"
        return "more_samples", text, None
    return "enough", f"all {len(layers)} inputs have settled and hold on held-out rows", None
