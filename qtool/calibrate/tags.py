"""How well the calibration rows cover each kind of traffic, judged on rows of it that made no range."""

from collections.abc import Mapping, Sequence

import numpy as np

from qtool.calibrate.statistics.inputs import Group, InputStatistics
from qtool.calibrate.statistics.likeness import ALARM_RATE, Likeness, Places, closeness, likeness
from qtool.records.certificate import CalibrationVerdict, LayerCertificate, TagCertificate


def certify_tags(
    inputs: Sequence[InputStatistics],
    layers: Sequence[LayerCertificate],
    groups: Sequence[Group],
    *,
    seed: int,
) -> tuple[TagCertificate, ...]:
    """One certificate for each tag that has held-out rows."""
    near = closeness(inputs, groups)
    kinds = _places(groups, held_out=False)
    return tuple(
        _tag(tag, inputs, layers, groups, likeness(places, kinds, near, seed=seed))
        for tag, places in _places(groups, held_out=True).items()
    )


def coverage(entry: InputStatistics, tag: str) -> float | None:
    """Share of the columns of one input whose held-out extremes of `tag` lie inside what calibration saw."""
    held_out = entry.held_out.get(tag)
    if held_out is None or held_out.tokens == 0 or entry.channels.tokens == 0:
        return None
    inside = (held_out.low >= entry.channels.low) & (held_out.high <= entry.channels.high)
    return float(inside.mean())


def _places(groups: Sequence[Group], *, held_out: bool) -> Mapping[str, Places]:
    """Where the groups of each tag stand in `groups`."""
    tags = sorted({group.tag for group in groups if group.held_out == held_out})
    return {
        tag: np.array(
            [place for place, group in enumerate(groups) if group.tag == tag and group.held_out == held_out], np.int64
        )
        for tag in tags
    }


def _tag(
    tag: str,
    inputs: Sequence[InputStatistics],
    layers: Sequence[LayerCertificate],
    groups: Sequence[Group],
    found: Likeness | None,
) -> TagCertificate:
    rows = {False: 0, True: 0}
    for group in groups:
        rows[group.held_out] += len(group.rows) if group.tag == tag else 0
    shares = [share for entry in inputs if (share := coverage(entry, tag)) is not None]
    clips = [
        (clip, layer.input) for layer in layers for found in layer.ranges for clip in found.held_out if clip.tag == tag
    ]
    worst, where = max(clips, key=lambda pair: pair[0].clipped_energy, default=(None, ""))
    losing = [layer.input for layer in layers if tag in layer.lost_tags]
    verdict, reason = _judge(rows, losing, found)
    return TagCertificate(
        tag=tag,
        sequences=rows[False],
        held_out_sequences=rows[True],
        held_out_tokens=max((entry.held_out[tag].tokens for entry in inputs if tag in entry.held_out), default=0),
        score=float(np.mean(shares)) if shares else 0.0,
        worst_clipped_share=max((clip.clipped_share for clip, _ in clips), default=0.0),
        worst_clipped_energy=worst.clipped_energy if worst else 0.0,
        worst_input=where,
        verdict=verdict,
        reason=reason,
        distance=found.distance if found else None,
        p_value=found.p_value if found else None,
        nearest=found.nearest if found else (),
    )


def _judge(rows: Mapping[bool, int], losing: Sequence[str], found: Likeness | None) -> tuple[CalibrationVerdict, str]:
    """Rows of a tag in the mix are drawn as its held-out rows are, so more of them help; one that is not may differ."""
    if rows[False]:
        if losing:
            return "more_samples", f"ranges cut off its held-out rows in {len(losing)} inputs, first {losing[0]}"
        return "enough", ""
    cut = f"ranges cut it off in {len(losing)} inputs"
    if found is None:
        if losing:
            return "wrong_mix", f"no row of it is in the mix, and {cut}"
        return "not_assessed", f"{rows[True]} rows of it are too few to tell whether the mix is like them"
    mixture = " and ".join(found.nearest)
    if found.p_value <= ALARM_RATE:
        also = f"; {cut}" if losing else ""
        return "wrong_mix", f"no row of it is in the mix, and {mixture} are not like it, p = {found.p_value:.3f}{also}"
    if losing:
        return "more_samples", f"it is like {mixture}, but {cut}"
    return "enough", ""
