"""The door is strict: every wrong key of a document is named, with its file, at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from qtool.errors import NumericError, PlanError, StoreError
from qtool.store.codec import decode, encode, read_json_object, read_toml, to_json


@dataclass(frozen=True, slots=True)
class Inner:
    count: int
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    ratio: float
    parts: tuple[Inner, ...] = ()
    pair: tuple[str, int] | None = None
    named: dict[str, Inner] | None = None
    flag: bool = False


def test_a_record_survives_encoding_and_decoding() -> None:
    record = Outer("x", 0.5, (Inner(1), Inner(2, "b")), ("p", 3), {"n": Inner(4)}, True)
    assert decode(Outer, encode(record), source="memory") == record


def test_an_integer_is_accepted_where_a_float_is_expected() -> None:
    assert decode(Outer, {"name": "x", "ratio": 1}, source="memory").ratio == 1.0


def test_every_problem_is_reported_at_once_with_file_and_key() -> None:
    document = {"name": 3, "parts": [{"count": "many", "kind": "c"}, {"cuont": 1}], "flag": 1}
    with pytest.raises(PlanError) as caught:
        decode(Outer, document, source="plan.toml")
    text = "\n".join(caught.value.problems)
    for expected in (
        "plan.toml: name: expected str, got int 3",
        "plan.toml: ratio: missing key",
        "plan.toml: parts[0].count: expected int, got str 'many'",
        "plan.toml: parts[0].kind: 'c' is not one of 'a', 'b'",
        "plan.toml: parts[1].cuont: unknown key",
        "plan.toml: parts[1].count: missing key",
        "plan.toml: flag: expected bool, got int 1",
    ):
        assert expected in text
    assert len(caught.value.problems) == 7


def test_true_is_not_a_number() -> None:
    with pytest.raises(PlanError, match="ratio: expected float, got bool"):
        decode(Outer, {"name": "x", "ratio": True}, source="memory")


def test_equal_records_give_equal_bytes_whatever_the_order_of_keys() -> None:
    assert to_json({"b": 1, "a": Inner(1)}) == to_json({"a": Inner(1), "b": 1})


def test_not_a_number_is_refused_when_written() -> None:
    with pytest.raises(NumericError, match="a result is nan and no number"):
        to_json(Outer("x", float("nan")))


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("name = 'x'\nratio = = 1\n")
    with pytest.raises(PlanError, match=r"plan\.toml: not valid TOML: .*line 2"):
        read_toml(Outer, path)


def test_broken_json_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(StoreError, match=r"x\.json: not valid JSON: .*line 2"):
        read_json_object(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such file"):
        read_toml(Outer, tmp_path / "absent.toml")
