"""docs/evaluation.md says what the program does: its table is the tasks', its own example runs, its options exist."""

import tomllib
from pathlib import Path

from qtool.evaluate import advice
from qtool.evaluate.asking.noise_floor import MOST_ITEMS
from qtool.evaluate.asking.teacher_forcing import NEAR_TIE_NATS
from qtool.evaluate.items import tasks
from qtool.evaluate.items.describe import table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_table_of_tasks_is_the_folder_of_tasks() -> None:
    assert table() in PAGE, "put the output of qtool.evaluate.items.describe.table() there"


def test_the_task_of_ones_own_is_one(tmp_path: Path) -> None:
    text = PAGE.split("```toml\n")[1].split("```")[0]
    (tmp_path / "colours.toml").write_text(text, encoding="utf-8")
    (tmp_path / "colours.jsonl").write_text('{"id": "1", "word": "red", "answer": " der"}\n')
    task = tasks.load_task(str(tmp_path / "colours.toml"))
    assert tasks.load_items(task)[0].target == "der"
    assert tomllib.loads(text)["name"] == "colours"


def test_its_numbers_are_the_programs() -> None:
    assert f"Up to {MOST_ITEMS} items are asked again" in PAGE
    assert f"wins by {NEAR_TIE_NATS} nats" in PAGE
    assert f"more than {advice.MOST_TO_DECIDE:,} items" in PAGE
