"""The certificate: what it says of data that suffice, of data that do not, and of traffic that was left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_model import make_tiny_llama

from qtool.calibrate.stage import calibrate
from qtool.calibrate.statistics.channels import dead_channels, effective_rank, outlier_channels, tail_index
from qtool.calibrate.statistics.inputs import (
    ChannelSums,
    Group,
    GroupCounts,
    InputStatistics,
    TokenSample,
    merge_statistics,
    no_channels,
    smallest_draws,
)
from qtool.calibrate.statistics.likeness import ALARM_RATE, closeness, likeness
from qtool.errors import MismatchError
from qtool.progress import Silent
from qtool.records.calibration import Calibration
from qtool.records.certificate import TagCertificate
from qtool.records.histogram import BINS, Histogram, bin_of
from qtool.records.plan import CalibrationSettings
from qtool.reference import names as reference_names
from qtool.store.shipped import sets_folder


def statistics(vectors: np.ndarray) -> InputStatistics:
    sums = ChannelSums(
        len(vectors),
        vectors.min(0),
        vectors.max(0),
        vectors.sum(0),
        np.abs(vectors).sum(0),
        (vectors**2).sum(0),
    )
    sample = TokenSample(np.arange(len(vectors)) / len(vectors), vectors.astype(np.float32))
    return InputStatistics("layer", vectors.shape[1], (), sums, {}, smallest_draws([sample]))


def test_effective_rank_counts_the_directions_in_use() -> None:
    generator = np.random.default_rng(0)
    directions = np.linalg.qr(generator.normal(size=(64, 64)))[0]
    for rank in (1, 4, 64):
        vectors = generator.normal(size=(256, rank)) @ directions[:rank]
        # 256 tokens estimate the squared products to about 1/sqrt(256 * 255 / 2) of their mean
        assert effective_rank(statistics(vectors)) == pytest.approx(rank, rel=0.12)
    assert effective_rank(statistics(np.ones((1, 8)))) is None


def test_dead_and_outlier_channels_are_found() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 32))
    vectors[:, 7] = 0.0
    vectors[:, [3, 20]] *= [[50.0, 100.0]]
    entry = statistics(vectors)
    assert dead_channels(entry) == 1
    assert outlier_channels(entry) == (20, 3)


@pytest.mark.parametrize("index", [2.0, 4.0])
def test_tail_index_is_that_of_the_distribution(index: float) -> None:
    values = (np.random.default_rng(0).pareto(index, 2_000_000) + 1).astype(np.float32)
    counts = np.bincount(bin_of(values), minlength=BINS).astype(np.int64)
    found = tail_index(Histogram(counts, float(values.min()), float(values.max())))
    assert found == pytest.approx(index, rel=0.1)  # 2,000 values in the tail: standard error 2 %, and the bins' width


def test_a_group_in_two_shards_is_refused() -> None:
    counts = GroupCounts(3, 1, np.array([5], np.int32), np.array([1]), 0.0, 1.0)
    entry = replace(statistics(np.ones((4, 2))), groups=(counts,))
    with pytest.raises(MismatchError, match="group 3 of the set is in both shards"):
        merge_statistics(entry, entry)
    with pytest.raises(MismatchError, match="different inputs"):
        merge_statistics(entry, replace(entry, name="other", channels=no_channels(2)))


def run(model: Path, settings: CalibrationSettings, output: Path) -> Calibration:
    return calibrate(model, settings, output, progress=Silent())


def test_more_rows_settle_the_ranges(tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "tiny")
    words = ["the", "river", "ran", "past", "seven", "old", "mills", "and", "nobody", "had", "counted", "them", "twice"]
    generator = np.random.default_rng(0)
    rows = [{"text": " ".join(generator.choice(words, 8))} for _ in range(400)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CalibrationSettings(set=str(path), sequences=4, sequence_tokens=64, observers=("percentile:99",))
    few = run(model, settings, tmp_path / "few").certificate
    many = run(model, replace(settings, sequences=120), tmp_path / "many").certificate
    assert few is not None
    assert many is not None
    width = [
        np.mean(
            [
                (layer.ranges[0].interval_high - layer.ranges[0].interval_low) / layer.ranges[0].high
                for layer in found.layers
            ]
        )
        for found in (few, many)
    ]
    # 30 times the rows: the interval shrinks by the square root of it, if the few rows estimate their own spread well
    assert width[0] / width[1] == pytest.approx(30**0.5, rel=0.5)
    assert few.verdict == "more_samples"
    assert (few.needed_sequences or 0) >= 8
    settled = [layer for layer in many.layers if layer.verdict == "enough"]
    assert len(settled) > sum(layer.verdict == "enough" for layer in few.layers)
    for layer in many.layers:
        (found,) = layer.ranges
        assert found.interval_low <= found.high <= found.interval_high
        assert found.curve[-1].sequences == 120
        assert [point.sequences for point in found.curve] == sorted(point.sequences for point in found.curve)
        assert 0.8 < found.split_half_ratio < 1.25
        (clip,) = found.held_out
        # nominal 1 %, within the spread between 30 held-out rows
        assert clip.clipped_share == pytest.approx(found.nominal_share or 0, abs=0.006)


@pytest.fixture
def mixed_without_arithmetic(tmp_path: Path) -> str:
    """The shipped mixed set, its arithmetic rows only checking."""
    text = (sets_folder() / "mixed.toml").read_text()
    hidden = text.replace('tag = "arithmetic"\nweight = 3.0', 'tag = "arithmetic"\nweight = 0.0')
    assert hidden != text
    hidden = hidden.replace('"general.jsonl"', f'"{sets_folder() / "general.jsonl"}"')
    path = tmp_path / "mixed.toml"
    path.write_text(hidden)
    return str(path)


def tag_of(calibration: Calibration, tag: str) -> TagCertificate:
    assert calibration.certificate is not None
    return next(entry for entry in calibration.certificate.tags if entry.tag == tag)


@pytest.mark.skipif(not reference_names(), reason="no reference model is bundled")
def test_hiding_the_arithmetic_rows_lowers_the_certificate_for_arithmetic(
    mixed_without_arithmetic: str, tmp_path: Path
) -> None:
    from qtool.models.locate import locate

    model = locate(reference_names()[0])
    settings = CalibrationSettings(set="mixed", sequences=128)
    whole = run(model, settings, tmp_path / "whole")
    hidden = run(model, replace(settings, set=mixed_without_arithmetic), tmp_path / "hidden")
    before, after = tag_of(whole, "arithmetic"), tag_of(hidden, "arithmetic")
    assert (before.sequences, after.sequences) == (32, 0)
    assert after.verdict == "wrong_mix"
    assert after.p_value is not None
    assert after.p_value <= ALARM_RATE
    assert after.score < before.score
    assert hidden.verdict == "wrong_mix"
    assert "arithmetic" in hidden.verdict_reason
    # nothing hidden: no kind of traffic is called uncovered
    assert whole.certificate is not None
    assert {tag.verdict for tag in whole.certificate.tags} <= {"enough", "more_samples"}


def groups_around(centres: np.ndarray, generator: np.random.Generator) -> InputStatistics:
    """One input whose group g holds 3,000 normal values of standard deviation centres[g], and some scatter."""
    found = []
    for number, centre in enumerate(centres):
        values = (generator.normal(size=3000) * centre * np.exp(0.1 * generator.normal())).astype(np.float32)
        counts = np.bincount(bin_of(values), minlength=BINS)
        bins = np.flatnonzero(counts)
        found.append(GroupCounts(number, 10, bins.astype(np.int32), counts[bins], values.min(), values.max()))
    return replace(statistics(np.ones((4, 2))), groups=tuple(found))


def named_groups(tags: list[str]) -> list[Group]:
    return [Group(number, tag, False, (number,)) for number, tag in enumerate(tags)]


@pytest.mark.parametrize(("kinds", "most_alarms"), [((1.0,), 3), ((1.0, 2.0), 3)])
def test_covered_traffic_is_called_unlike_as_rarely_as_is_said(kinds: tuple[float, ...], most_alarms: int) -> None:
    tags = ["small"] * 20 + ["large"] * 20 + ["traffic"] * 10
    alarms = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        centres = np.concatenate([np.full(20, 1.0), np.full(20, 2.0), np.resize(kinds, 10)])
        near = closeness([groups_around(centres, generator)], named_groups(tags))
        places = {"small": np.arange(20), "large": np.arange(20, 40)}
        found = likeness(np.arange(40, 50), places, near, seed=seed)
        assert found is not None
        alarms += found.p_value <= ALARM_RATE
    # 60 tests at a rate of 1 %: more than 3 alarms have a chance of 0.3 %
    assert alarms <= most_alarms


def test_traffic_unlike_every_tag_is_noticed_and_its_nearest_tag_named() -> None:
    generator = np.random.default_rng(0)
    centres = np.concatenate([np.full(20, 1.0), np.full(20, 4.0), np.full(10, 0.75)])
    near = closeness([groups_around(centres, generator)], named_groups(["a"] * 20 + ["b"] * 20 + ["traffic"] * 10))
    found = likeness(np.arange(40, 50), {"a": np.arange(20), "b": np.arange(20, 40)}, near, seed=0)
    assert found is not None
    assert found.p_value <= ALARM_RATE
    assert found.nearest == ("a",)
    assert found.distance > 1.0  # the centres are 0.29 apart in log, twice what two rows of one kind differ by


def test_too_few_rows_to_tell_are_not_judged() -> None:
    near = closeness([groups_around(np.ones(6), np.random.default_rng(0))], named_groups(["a"] * 4 + ["traffic"] * 2))
    # 2 of 6 can be chosen in 15 ways: no split can be rarer than 1 in 15
    assert likeness(np.arange(4, 6), {"a": np.arange(4)}, near, seed=0) is None
    assert likeness(np.arange(5, 6), {"a": np.arange(5)}, near, seed=0) is None
