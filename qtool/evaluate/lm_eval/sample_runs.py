"""Item results that other evaluators leave: NeMo Evaluator's `nel`, inspect_ai, and any JSON lines with id and score.

An item that was answered several times (`repeat` in nel, `epoch` in inspect_ai) becomes one item with its mean score
(avg@k): the answers to one item are not independent, so that they never count as several items.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qtool.errors import DataError
from qtool.evaluate.lm_eval.sample_log import Log, lines_of, read_logs
from qtool.records.evaluation import ItemResult
from qtool.store.digest import record_digest
from qtool.store.run_directory import explained

_INSPECT_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_IDS = ("id", "item_id", "sample_id", "doc_id", "problem_idx")
_SCORES = ("score", "correct", "reward", "is_correct", "passed", "acc", "exact_match")
_FORMS = "evaluations of qtool, samples_*.jsonl of lm-eval, results.jsonl of nel, *.eval or *.json of inspect_ai"


@dataclass(frozen=True, slots=True)
class Try:
    """One answer to one item, as another evaluator graded it."""

    item: str
    score: float
    question: str
    target: str
    answer: str
    where: str


def read_runs(path: Path, *, metric: str | None = None, log_filter: str | None = None) -> dict[str, Log]:
    """The items of each task in the file or folder `path`, whoever wrote it. Raises DataError naming file and line."""
    for read in (_nel, _inspect):
        found = read(path, metric)
        if found:
            return found
    if path.is_file() and path.suffix == ".jsonl" and not _is_lm_eval(path):
        return {path.stem: _log(_plain_lines(path, metric), metric or "score", str(path))}
    if path.is_dir() and not any(path.rglob("samples_*.jsonl")):
        raise DataError(f"{path}: holds none of {_FORMS}")
    return read_logs(path, metric=metric, log_filter=log_filter)


def _nel(path: Path, metric: str | None) -> dict[str, Log]:
    """`results.jsonl` of nel: one line for each `problem_idx` and `repeat`, with its `reward`."""
    files = [path] if path.name == "results.jsonl" else sorted(path.rglob("results.jsonl")) if path.is_dir() else []
    found = {}
    for file in files:
        tries = [_nel_try(file, number, line, metric or "reward") for number, line in lines_of(file)]
        name = _nel_task(file.parent)
        if name in found:
            raise DataError(f"{path}: {name} is there twice, in {file.parent} too; name one of the folders")
        found[name] = _log(tries, metric or "reward", str(file))
    return found


def _nel_try(file: Path, number: int, line: Mapping[str, object], metric: str) -> Try:
    where = f"{file}:{number}"
    if "problem_idx" not in line:
        raise DataError(f"{where}: no 'problem_idx'; this is not a result of nel")
    response = line.get("model_response", line.get("response", ""))
    return Try(
        item=str(line["problem_idx"]),
        score=_number(line.get(metric), where, metric),
        question=_text(line.get("prompt", "")),
        target=_text(line.get("expected_answer", "")),
        answer=_text(line.get("extracted_answer", response)),
        where=where,
    )


def _nel_task(folder: Path) -> str:
    """The benchmark's name in the bundle beside the results, else the folder's."""
    for bundle in sorted(folder.glob("eval-*.json")):
        benchmark = _object(bundle).get("benchmark")
        if isinstance(benchmark, dict) and benchmark.get("name"):
            return str(benchmark["name"])
    return folder.name


def _inspect(path: Path, metric: str | None) -> dict[str, Log]:
    """Logs of inspect_ai, as one JSON file or as a zip of its samples; the newest of each task."""
    files = [path] if path.suffix in (".eval", ".json") and path.is_file() else _inspect_files(path)
    found = {}
    for file in files:
        header, samples = _inspect_parts(file)
        described = header.get("eval")
        if not isinstance(described, dict):
            raise DataError(f"{file}: no 'eval' in its header; this is not a log of inspect_ai")
        tries, scorer = [], metric
        for place, sample in samples:
            scorer = scorer or _first_scorer(sample, place)
            tries.append(_inspect_try(sample, scorer, place))
        if not tries:
            raise DataError(f"{file}: holds no samples")
        found[str(described.get("task", file.stem))] = _log(tries, scorer or "score", str(file))
    return found


def _inspect_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    zipped = sorted(path.rglob("*.eval"), key=lambda file: file.name)
    return zipped or [file for file in sorted(path.glob("*.json")) if isinstance(_object(file).get("eval"), dict)]


def _inspect_parts(file: Path) -> tuple[Mapping[str, object], list[tuple[str, Mapping[str, object]]]]:
    if file.suffix == ".json":
        log = _object(file)
        listed = log.get("samples")
        samples = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return log, [(f"{file}, sample {number}", sample) for number, sample in enumerate(samples, start=1)]
    try:
        with explained(file), zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            header = json.loads(archive.read("header.json")) if "header.json" in names else {}
            inside = [name for name in names if name.startswith("samples/") and name.endswith(".json")]
            return header, [(f"{file}, {name}", json.loads(archive.read(name))) for name in inside]
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{file}: not a log of inspect_ai: {error}") from error


def _first_scorer(sample: Mapping[str, object], where: str) -> str:
    scores = sample.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise DataError(f"{where}: it was not scored")
    return str(next(iter(scores)))


def _inspect_try(sample: Mapping[str, object], scorer: str, where: str) -> Try:
    scores = sample.get("scores")
    score = scores.get(scorer) if isinstance(scores, dict) else None
    if not isinstance(score, dict):
        raise DataError(f"{where}: no score by {scorer!r}; name one with --metric")
    value = score.get("value")
    output = sample.get("output")
    completion = output.get("completion", "") if isinstance(output, dict) else ""
    return Try(
        item=str(sample.get("id")),
        score=_INSPECT_VALUES[value] if isinstance(value, str) and value in _INSPECT_VALUES
        else _number(value, where, scorer),
        question=_text(sample.get("input", "")),
        target=_text(sample.get("target", "")),
        answer=_text(score.get("answer") or completion),
        where=where,
    )  # fmt: skip


def _plain_lines(file: Path, metric: str | None) -> Iterator[Try]:
    """Any JSON lines with an id and a score, as evalpair and home-made scripts write them."""
    for number, line in lines_of(file):
        where = f"{file}:{number}"
        identity = next((name for name in _IDS if name in line), None)
        score = metric if metric in line else next((name for name in _SCORES if name in line), None)
        if identity is None or score is None:
            raise DataError(
                f"{where}: expected an id ({', '.join(_IDS)}) and a score ({', '.join(_SCORES)}, or one named with "
                f"--metric); it has {', '.join(sorted(line))}"
            )
        yield Try(
            item=str(line[identity]),
            score=_number(line[score], where, score),
            question=_text(line.get("prompt", line.get("question", ""))),
            target=_text(line.get("target", line.get("expected", ""))),
            answer=_text(line.get("answer", line.get("output", ""))),
            where=where,
        )


def _log(tries: Iterable[Try], metric: str, where: str) -> Log:
    """One row an item, with the mean score of its answers; a score beside another question under one id is refused."""
    by_item: dict[str, list[Try]] = {}
    for each in tries:
        known = by_item.setdefault(each.item, [])
        if known and (known[0].question, known[0].target) != (each.question, each.target):
            raise DataError(f"{each.where}: item {each.item!r} asked something else at {known[0].where}")
        known.append(each)
    if not by_item:
        raise DataError(f"{where}: holds no samples")
    rows = tuple(_row(item, answers) for item, answers in by_item.items())
    if not all(0.0 <= row.score <= 1.0 for row in rows):
        raise DataError(f"{where}: {metric} is not between 0 and 1 throughout; name another with --metric")
    return Log(metric=metric, rows=rows, binary=all(row.score in (0.0, 1.0) for row in rows))


def _row(item: str, answers: list[Try]) -> ItemResult:
    return ItemResult(
        id=item,
        prompt=answers[0].question,
        output=answers[0].answer,
        extracted=" | ".join(each.answer for each in answers),
        target=answers[0].target,
        score=sum(each.score for each in answers) / len(answers),
        finish="stop",
        prompt_tokens=0,
        output_tokens=0,
        latency_ms=0.0,
        prompt_digest=record_digest([answers[0].question, answers[0].target]),
    )


def _is_lm_eval(file: Path) -> bool:
    return file.name.startswith("samples_") or any("doc_id" in line for _, line in list(lines_of(file))[:1])


def _object(file: Path) -> Mapping[str, object]:
    with explained(file):
        text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not valid JSON: {error.msg}") from error
    return found if isinstance(found, dict) else {}


def _number(value: object, where: str, name: str) -> float:
    if isinstance(value, bool | int | float) and value == value:
        return float(value)
    raise DataError(f"{where}: {name} is {value!r}, not a number")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
