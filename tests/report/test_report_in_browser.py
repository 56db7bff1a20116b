"""The page as a browser shows it: nothing is cut at any width, everything folded is printed, plots and filters work."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from headless_browser import PROGRAM, Page, browser
from synthetic_run import calibration, certified, evaluation, write_run

from qtool.records.evaluation import Evaluation
from qtool.report.stage import report
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record, write_text

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium")

# boxes that hide or scroll part of what is in them, and whether the page itself is wider than the window
CUT = """[document.documentElement.scrollWidth > innerWidth ? 'page' : '',
  ...[...document.querySelectorAll('main *, nav.contents')].filter((box) => {
    const style = getComputedStyle(box);
    return box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 1 && style.overflowX !== 'visible'
      && style.display !== 'inline' && !box.closest('.vega-embed');
  }).map((box) => box.tagName + '.' + box.className)].filter(Boolean)"""
FLIP = (
    '{"id": "%s", "kind": "%s", "prompt": "How much is 7 + %d?", "target": "9", "baseline_output": "7 + 2 = 9", '
    '"variant_output": "7 + 2 = <b>8</b>", "token": 4, "baseline_margin": 1.5, "variant_margin": %s, '
    '"slices": [["operation", "%s"]], "notes": []}'
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it: a certificate, slices of both sizes, flips, long names."""
    run = write_run(tmp_path_factory.mktemp("page") / "demo")
    write_record(run / "calibration" / "calibration.json", certified(calibration()))
    rows = [FLIP % (f"item {i}", kind, i, margin, operation) for i, (kind, margin, operation) in enumerate(_flips())]
    write_text(run / "evaluations" / "w4a16" / "arithmetic.churn.jsonl", "\n".join(rows) + "\n")
    path = run / "evaluations" / "w4a16" / "facts.json"
    found = evaluation("w4a16", "facts", 0.97)
    (part,) = found.slices
    tiny = replace(part, value="a kind of which there are few", score=replace(part.score, items=3))
    write_record(path, replace(found, slices=(part, tiny)))
    assert read_json(Evaluation, path).slices[1].score.items == 3
    report(run, command="qtool run demo.toml")
    return run / "report.html"


def _flips() -> list[tuple[str, str, str]]:
    harmful = [("harmful", "0.1" if i % 2 else "2.5", "add") for i in range(8)]
    return [*harmful, ("beneficial", "null", "subtract"), ("wrong to other wrong", "0.3", "add")]


@pytest.fixture(scope="module")
def page(page_file: Path) -> Iterator[Page]:
    with browser() as found:
        yield found


def opened(page: Page, path: Path, width: int, *, dark: bool = False) -> Page:
    page.open(path, width=width, dark=dark)
    page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    return page


@pytest.mark.parametrize("width", [400, 820, 1280])
def test_nothing_is_cut_with_everything_open(page: Page, page_file: Path, width: int) -> None:
    # on a phone the list of sections is one line that scrolls; all else is whole
    found = [box for box in opened(page, page_file, width).run(CUT) if box != "OL."]
    assert found == []


def test_the_page_asks_for_nothing_and_complains_of_nothing(page: Page, page_file: Path) -> None:
    page.addresses.clear()
    page.complaints.clear()
    opened(page, page_file, 1280)
    page.run("document.querySelectorAll('figure.plot .live').forEach((place) => draw(place))")
    page.wait(
        "document.querySelectorAll('figure.drawn .live svg').length === document.querySelectorAll('figure').length"
    )
    assert [address for address in page.addresses if not address.startswith("file:")] == []
    assert page.complaints == []
    assert page.run("document.querySelectorAll('figure').length") >= 9


def test_the_contents_stay_in_view_and_name_the_section_that_is_read(page: Page, page_file: Path) -> None:
    for width in (400, 1280):
        page.open(page_file, width=width)
        page.run("document.querySelector('nav.contents a[href=\"#latency\"]').click()")
        page.wait("document.querySelector('nav.contents a[aria-current]').hash === '#latency'")
        box = "document.querySelector('nav.contents').getBoundingClientRect()"
        assert page.run(f"{box}.top >= 0 && {box}.top < 10")
        top = page.run("document.querySelector('#latency h2').getBoundingClientRect().top")
        assert 0 <= top < 300, "the heading is not below the contents"
    anchors = page.run("[...document.querySelectorAll('a[href^=\"#\"]')].map((link) => link.hash.slice(1))")
    assert all(page.run(f"!!document.getElementById('{anchor}')") for anchor in set(anchors))


def test_the_first_screen_answers(page: Page, page_file: Path) -> None:
    page.open(page_file, width=1280, height=1000)
    words = page.run("document.querySelector('#decision').innerText")
    for part in (
        "SHIP",
        "w8a16",
        "arithmetic",
        "47 % less",
        "The calibration text is not enough",
        "--until-decided 4200",
    ):
        assert part in words
    assert page.run("document.querySelector('#decision').getBoundingClientRect().bottom") < 1000


def test_the_matrix_has_verdict_and_interval_of_each_variant_on_a_phone(page: Page, page_file: Path) -> None:
    page.open(page_file, width=400)
    cells = page.run("""[...document.querySelectorAll('table.matrix tbody tr:first-child td')].map((cell) =>
      [getComputedStyle(cell, '::before').content, cell.innerText, cell.getBoundingClientRect().right < 400].join(' '))
    """)
    assert len(cells) == 5
    assert any("w4a16-g64" in cell and "UNDECIDED" in cell and "[" in cell for cell in cells)
    assert all(cell.endswith("true") for cell in cells)


def test_flipped_items_are_filtered(page: Page, page_file: Path) -> None:
    page.open(page_file, width=1280)
    shown = "document.querySelectorAll('.flip:not([hidden])').length"
    said = "document.querySelector('.filters output').textContent"
    assert page.run(shown) == 6
    page.run("document.querySelector('.more').click()")
    assert page.run(shown) == 10

    def choose(name: str, value: str) -> None:
        page.run(f"""(() => {{ const field = document.querySelector('.filters').elements['{name}'];
          field.value = '{value}'; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()""")

    for name, value, count in [("kind", "harmful", 8), ("lead", "1", 4), ("slice", "operation = subtract", 0)]:
        choose(name, value)
        assert page.run(said).endswith(f"of {count} shown")
    for name, value in [("kind", ""), ("lead", "0")]:
        choose(name, value)
    assert page.run(said) == "1 of 1 shown"
    choose("slice", "")
    choose("text", "7 + 3?")
    assert page.run(said) == "1 of 1 shown"
    assert page.run("document.querySelector('.flip:not([hidden]) mark').textContent") == "9"
    assert page.run("document.querySelectorAll('.flip:not([hidden]) mark')[1].textContent") == "<b>8</b>", "escaped"


def test_small_slices_are_folded(page: Page, page_file: Path) -> None:
    opened(page, page_file, 1280)
    rows = page.run("[...document.querySelectorAll('.slices tr.small')].map((row) => row.innerText)")
    assert any("1 slice of fewer than 20 items" in row for row in rows)
    assert "a kind of which there are few" not in page.run("document.body.innerText")


def test_a_plot_is_read_with_the_keyboard_and_as_a_table(page: Page, page_file: Path) -> None:
    opened(page, page_file, 1280)
    page.run("draw(document.querySelector('#plot-tradeoff .live'))")
    page.wait('document.querySelector(\'#plot-tradeoff .live [role="graphics-symbol"][tabindex="0"]\') !== null')
    page.run("document.querySelector('#plot-tradeoff .live [tabindex=\"0\"]').focus()")
    line = "document.querySelector('#plot-tradeoff .readout').textContent"
    first = page.run(line)
    page.press("ArrowRight")
    second = page.run(line)
    assert first != second
    assert "margins [" in first
    assert "margins [" in second
    rows = page.run("document.querySelectorAll('#plot-tradeoff .data tbody tr').length")
    assert rows == 5
    assert "w8a16" in page.run("document.querySelector('#plot-tradeoff .static').getAttribute('aria-label')")


def test_the_tabs_of_the_trade_off_show_one_plot(page: Page, page_file: Path) -> None:
    page.open(page_file, width=1280)
    shown = "[...document.querySelectorAll('.tabs figure:not(.folded)')].map((figure) => figure.id)"
    assert page.run(shown) == ["plot-tradeoff"]
    page.run("document.querySelectorAll('[role=tab]')[1].click()")
    assert page.run(shown) == ["plot-tradeoff-memory"]


def test_paper_has_what_is_folded_and_cuts_nothing(page: Page, page_file: Path, tmp_path: Path) -> None:
    page.open(page_file, width=718)  # what A4 leaves between its margins
    page.emulate("print")
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    assert [box for box in page.run(CUT) if box != "OL."] == []
    assert page.run("getComputedStyle(document.querySelector('nav.contents')).display") == "none"
    page.emulate("")
    if shutil.which("pdftotext") is None:
        return
    (tmp_path / "page.pdf").write_bytes(page.pdf())
    text = subprocess.run(["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"], capture_output=True, check=True)
    for words in (b"By slice", b"needs n 299", b"operation = add"):
        assert words in text.stdout


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_from_their_ground(page: Page, page_file: Path, dark: bool) -> None:
    """WCAG AA: a contrast of 4.5 for every colour that words are written in, on paper, card and tint."""
    page.open(page_file, width=1280, dark=dark)
    worst = page.run("""(() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue('--' + name).trim().slice(1);
        const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
          .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const pairs = [];
      for (const word of ['ink', 'soft', 'accent'])
        for (const ground of ['paper', 'card', 'tint']) pairs.push([word, ground]);
      for (const word of ['pass', 'fail', 'undecided', 'plain']) pairs.push([word, word + '-tint'], [word, 'card']);
      return pairs.map(([word, ground]) => {
        const [low, high] = [light(word), light(ground)].sort((a, b) => a - b);
        return [(high + 0.05) / (low + 0.05), word + ' on ' + ground];
      }).sort((a, b) => a[0] - b[0])[0];
    })()""")
    assert worst[0] >= 4.5, worst
