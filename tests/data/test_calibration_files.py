"""Reading local files: every kind, and every way one can be broken."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from qtool.data.files import Row, read_rows
from qtool.data.sampling import sample_rows
from qtool.errors import DataError, MissingPackage

ROWS = [{"text": "first row"}, {"text": "second, with a comma"}, {"text": "third\nin two lines"}]


def put(folder: Path, kind: str) -> Path:
    path = folder / f"rows{kind}"
    if kind in (".jsonl", ".jsonl.gz"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    elif kind == ".json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif kind == ".csv":
        path.write_text('text\nfirst row\n"second, with a comma"\n"third\nin two lines"\n')
    elif kind == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text("first row\n\n  \nsecond, with a comma\n\nthird\nin two lines\n")
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", ".txt"])
def test_every_kind_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    found = [row.fields["text"].strip() for row in read_rows(put(tmp_path, kind))]
    assert found == [row["text"] for row in ROWS]


def test_a_folder_is_all_its_data_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("from b\n")
    (tmp_path / "a.txt").write_text("from a\n")
    (tmp_path / "notes.bin").write_bytes(b"\0")
    assert [row.fields["text"] for row in read_rows(tmp_path)] == ["from a\n", "from b\n"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data file"):
        list(read_rows(tmp_path / "empty"))


def test_where_a_row_stands_is_kept(tmp_path: Path) -> None:
    rows = list(read_rows(put(tmp_path, ".txt")))
    assert [row.where.rpartition(":")[2] for row in rows] == ["1", "4", "6"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", r"a\.jsonl:1: expected an object, got list"),
        ("a.json", b'{"text": "x"}', "expected a list of objects at the top level, got dict"),
        ("a.json", b"[1]", "entry 1: expected an object, got int"),
        ("a.json", b'[{"a": 1},\n oops]', r"a\.json:2: not JSON"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a\.csv:3: has not 2 fields"),
        ("a.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("a.parquet", b"no parquet", "not a Parquet file"),
        ("a.xls", b"", "unknown kind"),
    ],
)
def test_a_broken_file_names_its_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / name))


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(MissingPackage, match=r"qtool\[data\]"):
        list(read_rows(path))


def rows_of(count: int) -> list[Row]:
    return [Row(str(number), {"text": f"row number {number:05d}"}) for number in range(count)]


def test_a_sample_is_the_same_for_a_seed_and_uniform() -> None:
    sample = sample_rows(iter(rows_of(2000)), seed=1, at_least=100, characters=0)
    assert sample.total == 2000
    assert len(sample.rows) == 100
    assert sample == sample_rows(iter(rows_of(2000)), seed=1, at_least=100, characters=0)
    assert sample != sample_rows(iter(rows_of(2000)), seed=2, at_least=100, characters=0)
    middle = sum(int(row.where) for row in sample.rows) / 100
    assert 800 < middle < 1200  # mean of 100 uniform places below 2000: standard error 58


def test_a_longer_sample_begins_with_the_shorter_one() -> None:
    short = sample_rows(iter(rows_of(500)), seed=1, at_least=10, characters=0).rows
    long = sample_rows(iter(rows_of(500)), seed=1, at_least=50, characters=0).rows
    assert long[:10] == short


def test_a_long_file_is_sampled_without_being_held() -> None:
    import tracemalloc

    def endless() -> object:
        for number in range(40_000):
            yield Row(str(number), {"text": "x" * 1000})

    tracemalloc.start()
    sample = sample_rows(endless(), seed=0, at_least=50, characters=100_000)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (sample.total, len(sample.rows)) == (40_000, 100)
    assert peak < 1_000_000 + 100 * sys.getsizeof("x" * 1000)  # of 40 MB read


@pytest.mark.parametrize("mark", ["﻿", ""])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\n'),
        ("a.json", '[{"text": "one"}]'),
        ("a.csv", "text,n\none,1\n"),
        ("semicolons.csv", "text;n\none;1\n"),
        ("tabs.csv", "text\tn\none\t1\n"),
        ("a.txt", "one"),
    ],
)
def test_a_byte_order_mark_and_other_delimiters_change_nothing(
    tmp_path: Path, mark: str, name: str, content: str
) -> None:
    (tmp_path / name).write_text(mark + content, encoding="utf-8")
    assert [row.fields["text"] for row in read_rows(tmp_path / name)] == ["one"]


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"n": ' + "3" * 5000 + "}", "number too long"), ("[" * 100_000, "nested too deep"), ("{", "not JSON")],
)
def test_json_that_python_does_not_read_is_told_by_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{words}"):
        list(read_rows(path))


def test_a_long_field_of_a_csv_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(next(iter(read_rows(tmp_path / "a.csv"))).fields["text"]) == 200_000
