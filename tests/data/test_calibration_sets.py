"""Sets: what a file may say, what a name finds, and that the shipped ones are sound."""

from itertools import islice
from pathlib import Path

import pytest

from qtool.data import generators
from qtool.data.generators import facts
from qtool.data.overlap import TaskIndex
from qtool.data.sets import load_set, set_names, with_traffic
from qtool.data.texts import source_rows
from qtool.errors import DataError, PlanError, UnknownName

GOOD = 'name = "mine"\nversion = 1\ndescription = "d"\nlicence = "none"\n'
SOURCE = '[[sources]]\ntag = "a"\ndata = "rows.txt"\n'


def put(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(set_names()))
def test_every_shipped_set_is_sound(name: str) -> None:
    spec = load_set(name)
    assert spec.description
    assert spec.licence
    for source in spec.sources:
        if source.hub is None:
            assert next(iter(source_rows(source, seed=0))).fields
        else:
            assert len(source.revision or "") == 40


def test_the_promised_sets_are_shipped() -> None:
    assert set(set_names()) >= {"general", "chat", "arithmetic", "code", "extraction", "mixed"}
    assert set(set_names()) >= {"wikitext2", "c4", "ultrachat", "gsm8k", "mbpp"}


def test_a_path_a_folder_and_a_name_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one paragraph\n")
    path = put(tmp_path, GOOD + SOURCE)
    assert load_set(str(path)).sources[0].data == str(tmp_path / "rows.txt")
    assert load_set("mine", sets_dir=tmp_path) == load_set(str(path))
    assert load_set(str(tmp_path)).sources[0].data == str(tmp_path)
    assert load_set(str(tmp_path / "rows.txt")).name == "rows"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + '[[sources]]\ntag = "a"\n', "exactly one of generator, data, hub; got none"),
        (GOOD + SOURCE + 'generator = "code"\n', r"got \['generator', 'data'\]"),
        (GOOD + SOURCE + "weight = -1.0\n", "weight -1.0"),
        (GOOD + SOURCE + "weight = 0.0\n", "every source has weight 0"),
        (GOOD + SOURCE + "wight = 1.0\n", r"sources\[0\].wight: unknown key"),
        (GOOD + SOURCE + SOURCE, "tag 'a' is given to 2 sources"),
        (GOOD + '[[sources]]\ntag = "a"\nhub = "x/y"\n', "needs a pinned revision"),
        (GOOD + SOURCE + 'text = "{a}"\nmessages = "m"\n', "both text and messages"),
        (GOOD + "sources = []\n", "at least one"),
        (GOOD.replace("mine", "yours") + SOURCE, "is 'yours' but the file is called 'mine'"),
        (GOOD + "[[sources]\n", "not valid TOML"),
    ],
)
def test_what_a_set_cannot_mean_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=message):
        load_set(str(put(tmp_path, text)))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean general"):
        load_set("generel")
    with pytest.raises(DataError, match="no such file"):
        load_set(str(tmp_path / "none.jsonl"))
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    with pytest.raises(DataError, match="is no calibration set"):
        load_set(str(picture))


def test_traffic_makes_no_range() -> None:
    both = with_traffic(load_set("arithmetic"), load_set("mixed"))
    assert [source.weight for source in both.sources[:3]] == [2.0, 1.0, 1.0]
    assert {source.weight for source in both.sources[3:]} == {0.0}
    assert "arithmetic (traffic)" in {source.tag for source in both.sources}


@pytest.mark.parametrize("name", ["facts", "classification", "extraction", "retrieval"])
def test_no_row_of_a_generator_holds_one_of_its_test_items(name: str) -> None:
    index = TaskIndex()
    for item in generators.draw(name, "test", 20261123, 300):
        index.add(name, " ".join(value for _, value in item.fields))
    source = next(source for source in load_set("mixed").sources if source.tag == name)
    rows = [" ".join(map(str, row.fields.values())) for row in islice(source_rows(source, seed=0), 250)]
    assert len(rows) == 250
    assert [row for row in rows if index.repeated(row)] == []


def test_a_fact_with_another_ending_is_the_same_question() -> None:
    asked = "Name the country whose capital is Oslo."
    assert set(facts.alike(asked)) == {asked + ending for ending in facts.ENDINGS}
    assert set(facts.alike(asked + " Answer briefly.")) == set(facts.alike(asked))
