"""The plots: drawn from the record, named and tabled, and as files."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from synthetic_run import calibration, certified, latency, write_run

from qtool.records.report import Report
from qtool.report.join import join
from qtool.report.plots import drawn, library
from qtool.report.plots.kinds import KINDS, plots_of
from qtool.report.plots.load import crossovers
from qtool.report.stage import judge
from qtool.store.run_directory import write_record


@pytest.fixture
def found(tmp_path: Path) -> Report:
    run = write_run(tmp_path / "demo")
    write_record(run / "calibration" / "calibration.json", certified(calibration()))
    return judge(join(run), name="demo", command="c")


def test_every_kind_is_drawn_with_words_and_a_table(found: Report) -> None:
    plots = plots_of(found)
    assert set(plots) == set(KINDS)
    for kind, plot in plots.items():
        assert plot.kind == kind
        assert len(plot.alt) > 40, "who does not see the plot reads what it shows"
        assert plot.rows
        assert all(len(row) == len(plot.head) for row in plot.rows)
        picture = ElementTree.fromstring(drawn.svg(plot))
        assert picture.tag.endswith("svg")
        assert "var(--" not in drawn.svg(plot), "a file has no style to look colours up in"


def test_a_run_without_numbers_has_no_plot_of_them(found: Report) -> None:
    bare = replace(
        found, rows=tuple(replace(row, latency=None, evaluations=()) for row in found.rows), calibration=None
    )
    assert set(plots_of(bare)) == {"sensitivity"}


def test_a_png_is_a_picture(found: Report) -> None:
    assert drawn.png(plots_of(found)["churn"]).startswith(b"\x89PNG")


def test_a_specification_cannot_end_its_script(found: Report) -> None:
    rows = (found.rows[0], replace(found.rows[1], variant=replace(found.rows[1].variant, name="</script><img>")))
    text = drawn.live(plots_of(replace(found, rows=rows))["tradeoff"])
    assert "<" not in text
    assert any(point["variant"] == "</script><img>" for point in json.loads(text)["data"]["values"])


def test_the_crossover_is_found_between_the_loads_where_it_lies(found: Report) -> None:
    slow = latency("w8a8", 10.0)
    low, high = slow.levels
    slow = replace(slow, levels=(low, replace(high, output_tokens_per_second=10.0)))
    rows = tuple(replace(row, latency=slow) if row.variant.name == "w8a8" else row for row in found.rows)
    assert crossovers(replace(found, rows=rows)) == ("w8a8 is ahead of baseline up to 1 and behind from 8 in flight",)


def test_pictures_have_the_colours_of_the_page() -> None:
    css = files("qtool.report").joinpath("page", "page.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", css[: css.index("@media")]))
    assert {name: light[name] for name in drawn.LIGHT} == drawn.LIGHT


def test_the_script_of_the_page_is_of_the_versions_that_draw_the_pictures() -> None:
    assert library.script().startswith(re.sub(r" vl-convert .*:", "", library.head()).split(",")[0])
    assert "</script" not in library.script()
