"""Finished evaluations on disk: `<task>.json` and `<task>.items.jsonl`, and the journal of one under way."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from qtool.errors import MismatchError, PlanError, StoreError
from qtool.evaluate.contract import Question
from qtool.records.evaluation import Agreement, Evaluation, ItemResult, Look, TaskTiming
from qtool.records.rounding_noise import RoundingNoise
from qtool.store.codec import decode, read_json
from qtool.store.run_directory import explained, write_record, write_text

Answered = dict[str, ItemResult]

_FIELDS = tuple(field.name for field in dataclasses.fields(ItemResult))


def manifest_path(folder: Path, task: str) -> Path:
    """Where the manifest of `task` lies."""
    return folder / f"{task}.json"


def items_path(folder: Path, task: str) -> Path:
    """Where the items of `task` lie."""
    return folder / f"{task}.items.jsonl"


def journal_path(folder: Path, task: str) -> Path:
    """Where items are written as they are answered."""
    return folder / f"{task}.items.jsonl.partial"


def read_finished(folder: Path, task: str) -> tuple[Evaluation, Answered]:
    """The evaluation of `task` in `folder` and its items by id. Raises StoreError where it is missing or unfinished."""
    path, rows = manifest_path(folder, task), items_path(folder, task)
    if not path.is_file() or not rows.is_file():
        raise StoreError(f"{folder}: has no finished evaluation of {task}; run qtool eval on that model first")
    with explained(folder):
        stamps = tuple((each.stat().st_mtime_ns, each.stat().st_size) for each in (path, rows))
    evaluation, answered = _read_finished(folder, task, stamps)
    return evaluation, dict(answered)


def read_all(folder: Path) -> tuple[Evaluation, ...]:
    """Manifests of every finished evaluation in `folder`; other JSON files there are none of our business."""
    paths = [path for path in sorted(folder.glob("*.json")) if items_path(folder, path.stem).is_file()]
    return tuple(read_json(Evaluation, path) for path in paths)


@functools.lru_cache(maxsize=16)
def noise_path(folder: Path, task: str) -> Path:
    """Where the noise of `task` lies."""
    return folder / f"{task}.rounding.json"


def read_noise(folder: Path, task: str, run_digest: str) -> RoundingNoise | None:
    """The noise measured in `folder` for this very run, or None."""
    path = noise_path(folder, task)
    if not path.is_file():
        return None
    try:
        noise = read_json(RoundingNoise, path)
    except (PlanError, StoreError):
        return None  # written by another version of qtool: measured anew
    return noise if noise.run_digest == run_digest else None


def write_noise(folder: Path, task: str, noise: RoundingNoise) -> None:
    """Keeps the noise beside the evaluation it belongs to."""
    write_record(noise_path(folder, task), noise)


def _read_finished(folder: Path, task: str, stamps: tuple[tuple[int, int], ...]) -> tuple[Evaluation, Answered]:
    """Read once for as long as the files, known by their `stamps`, are the same: every variant needs the baseline's."""
    evaluation = read_json(Evaluation, manifest_path(folder, task))
    results = read_items(items_path(folder, task))
    if len(results) != evaluation.score.items or any(row.run_digest != evaluation.run_digest for row in results):
        raise StoreError(f"{items_path(folder, task)}: does not belong to {task}.json; run the evaluation again")
    return evaluation, {row.id: row for row in results}


def read_items(path: Path) -> list[ItemResult]:
    """Every line of an items file. Raises StoreError naming the line that is not an item."""
    rows = []
    with explained(path):
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: answers may hold U+2028
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(decode(ItemResult, json.loads(line), source=f"{path}:{number}"))
        except (json.JSONDecodeError, PlanError) as error:
            raise StoreError(f"{path}:{number}: not a line of an items file: {error}") from error
    return rows


def reusable(folder: Path, task: str, run_digest: str, questions: Sequence[Question]) -> Answered:
    """Answers to these very questions that an earlier run, finished or killed, left in `folder`."""
    wanted = {question.item.id: question.digest for question in questions}
    found: Answered = {}
    for path in (items_path(folder, task), journal_path(folder, task)):
        for row in _whole_lines(path):
            if row.run_digest == run_digest and wanted.get(row.id) == row.prompt_digest:
                found.setdefault(row.id, row)
    return found


@contextlib.contextmanager
def journal(folder: Path, task: str, kept: Iterable[ItemResult]) -> Iterator["Journal"]:
    """A journal that begins with the answers `kept`; each further one is on disk when `add` returns."""
    path = journal_path(folder, task)
    write_text(path, "".join(_line(row) for row in kept))
    with explained(path), path.open("a", encoding="utf-8") as stream:
        yield Journal(stream)


class Journal:
    """Adds one answer at a time to an open journal file."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, row: ItemResult) -> None:
        """Writes `row`; a process killed afterwards has kept it."""
        self._stream.write(_line(row))
        self._stream.flush()


def earlier_looks(
    folder: Path, task: str, run_digest: str, *, against: str, margin: float, percent: float | None = None
) -> tuple[Look, ...]:
    """Looks that the ship test of this variant against these very answers, at this margin, has had before; a margin in
    percent of the base's score moves a little as items are added and is the same margin."""
    found = _earlier(folder, task)
    if found is None or found.run_digest != run_digest or found.comparison is None:
        return ()
    same = (
        found.comparison.baseline_digest == against
        and (percent is not None or found.comparison.margin == margin)
        and found.margin_percent == percent
    )
    return found.comparison.history if same else ()


def earlier_timing(folder: Path, task: str, run_digest: str, items: int) -> TaskTiming | None:
    """The timing of the same run of `task` over as many items that was finished here before."""
    found = _earlier(folder, task)
    return found.timing if found is not None and (found.run_digest, found.score.items) == (run_digest, items) else None


def earlier_agreement(folder: Path, task: str, run_digest: str) -> Agreement | None:
    """The agreement that an earlier run of the same model on the same task measured."""
    found = _earlier(folder, task)
    return found.agreement if found is not None and found.run_digest == run_digest else None


def finish(folder: Path, evaluation: Evaluation, results: Sequence[ItemResult]) -> None:
    """Writes the items in their order, then the manifest, then removes the journal."""
    write_text(items_path(folder, evaluation.task), "".join(_line(row) for row in results))
    write_record(manifest_path(folder, evaluation.task), evaluation)
    with explained(folder):
        journal_path(folder, evaluation.task).unlink(missing_ok=True)


def matched(baseline: Answered, results: Sequence[ItemResult], *, where: Path) -> list[ItemResult]:
    """The baseline's row for each of `results`. Raises MismatchError where it has others, or asked them otherwise."""
    missing = [row.id for row in results if row.id not in baseline]
    if missing:
        raise MismatchError(
            f"{where}: the baseline answered other items: {len(missing)} of {len(results)} are missing, such as "
            f"{missing[0]!r}; evaluate it on the same task and number of items"
        )
    pairs = [(baseline[row.id], row) for row in results]
    changed = [row.id for before, row in pairs if before.prompt_digest != row.prompt_digest]
    if changed:
        raise MismatchError(f"{where}: the baseline was asked item {changed[0]!r} in other words; evaluate it again")
    return [before for before, _ in pairs]


def _line(row: ItemResult) -> str:
    """One JSON line; the record is flat, so that `codec.encode` and its walk through every token can be left out."""
    return json.dumps({name: getattr(row, name) for name in _FIELDS}, ensure_ascii=False, allow_nan=False) + "\n"


def _earlier(folder: Path, task: str) -> Evaluation | None:
    """The manifest that lies in `folder`, None where there is none or another version of qtool wrote it."""
    path = manifest_path(folder, task)
    try:
        return read_json(Evaluation, path) if path.is_file() else None
    except (PlanError, StoreError):
        return None


def _whole_lines(path: Path) -> Iterator[ItemResult]:
    """Rows of a file that a killed process may have left: what does not decode is asked again."""
    if not path.is_file():
        return
    with explained(path):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError, PlanError):
            yield decode(ItemResult, json.loads(line), source=str(path))
