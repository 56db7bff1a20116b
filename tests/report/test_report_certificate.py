"""The certificate's page: what it shows of the record, in HTML, Markdown and the plot."""

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import calibration, certified, write_run

from qtool.records.certificate import Certificate
from qtool.report.drawing.certificate import losses, nominal, share_text, worst_first
from qtool.report.html import section
from qtool.report.plots.layers import convergence
from qtool.report.stage import report
from qtool.store.run_directory import write_record


@pytest.fixture
def certificate() -> Certificate:
    found = certified(calibration()).certificate
    assert found is not None
    return found


def test_the_page_shows_everything_that_was_certified(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    write_record(run / "calibration" / "calibration.json", certified(calibration()))
    report(run, command="c")
    html = (run / "report.html").read_text(encoding="utf-8")
    shown = [
        "MORE SAMPLES", "about 640 sequences would do",  # verdict
        "81.0 %", "+0.310, p 0.001", "nearest: arithmetic",  # coverage of a tag
        "nominal 0.1 %", "energy up to 9 %",  # clipping against what the observer means to clip
        "[1.5, 2.5]", "halves 0.99", "doubling 0.4 %",  # a range
        "31<span", "3 dead", "outliers: 7, 9", "800 tokens", "read by 2 layers",  # a layer
        "expert 3: 5 tokens, 256 needed",
    ]  # fmt: skip
    assert [words for words in shown if words not in html] == []
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "one input is loose; about 640 sequences would do" in text
    assert "WRONG MIX" in text


def test_a_calibration_without_certificate_has_no_section() -> None:
    assert section(calibration()) == ""


def test_inputs_are_listed_worst_first(certificate: Certificate) -> None:
    assert [layer.verdict for layer in worst_first(certificate)] == ["more_samples", "enough"]
    wrong = replace(certificate.layers[0], verdict="wrong_mix")
    assert worst_first(replace(certificate, layers=(*certificate.layers, wrong)))[0] == wrong


def test_clip_rates_are_pooled_over_inputs_and_energy_is_the_worst(certificate: Certificate) -> None:
    first, second = certificate.layers
    (entry,) = second.ranges
    (clip, other) = entry.held_out
    rarer = replace(entry, held_out=(replace(clip, values=3000, clipped_share=0.0, clipped_energy=0.5), other))
    found = losses(replace(certificate, layers=(first, replace(second, ranges=(rarer,)))), "arithmetic")
    assert [loss.clipped_share for loss in found] == pytest.approx([1000 * 0.0012 / 4000])
    assert (found[0].worst_energy, found[0].worst_input) == (0.5, second.input)
    assert nominal(certificate, "percentile:99.9") == 0.001


def test_the_curve_ends_at_one_within_its_interval(certificate: Certificate) -> None:
    drawn = convergence(certificate)
    assert drawn is not None
    points = drawn.spec["data"]["values"]
    last = [point for point in points if point["last"]]
    assert len(last) == 2, "a curve of each input"
    assert {point["share"] for point in last} == {1.0}
    assert all(point["low"] < 1 < point["high"] for point in last)
    assert convergence(replace(certificate, layers=())) is None


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (1e-7, "< 0.001 %"), (0.00012, "0.012 %"), (0.09, "9 %"), (1.0, "1e+02 %")]
)
def test_small_shares_keep_two_digits(share: float, text: str) -> None:
    assert share_text(share) == text
