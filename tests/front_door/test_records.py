"""What a session shows of a record: one short line, a table, and the table in a notebook."""

from dataclasses import replace
from pathlib import Path

from synthetic_run import calibration, certified, latency, variant, write_run

import qtool
from qtool.front_door.timing import Timings
from qtool.records.variant import Variant


def test_a_record_is_one_short_line() -> None:
    assert repr(variant("w4", "w4a16")) == "Variant(name='w4', scheme='w4a16', method='rtn', bytes=900000, fallbacks=0)"
    assert len(repr(certified(calibration()))) < 120


def test_a_table_is_what_the_command_prints(tmp_path: Path) -> None:
    report = qtool.report(write_run(tmp_path / "demo"))
    assert repr(report) == "Report(run='demo', baseline='baseline', variant='w8a16')"
    assert "Ship w8a16" in report.table()
    assert qtool.Variant is Variant
    assert "variant w4: w4a16" in variant("w4", "w4a16").table()
    assert "calibration of reference-128" in calibration().table()
    timed = Timings((latency("a", 10.0), latency("b", 12.0)))
    assert timed.table().startswith("a: ")
    assert timed.profiles[0].table().startswith("a: ")


def test_a_notebook_shows_the_table_escaped() -> None:
    html = replace(variant("w4", "w4a16"), name="<w4>")._repr_html_()
    assert html.startswith("<pre>")
    assert "&lt;w4&gt;" in html
    assert "<w4>" not in html


def test_two_folders_are_compared_in_one_call(tmp_path: Path) -> None:
    found = qtool.show(write_run(tmp_path / "demo") / "variants" / "w8a16")
    assert isinstance(found.record, Variant)
    assert found.text == found.record.table()
