"""Our evaluations in the files of other evaluators, so that their comparisons, gates and viewers can read them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qtool.errors import DataError, PlanError
from qtool.evaluate import results
from qtool.records.evaluation import Evaluation, ItemResult
from qtool.store.digest import record_digest
from qtool.store.run_directory import write_text

Rows = Sequence[ItemResult]


def export(evaluations: Path, form: str, output: Path) -> tuple[Path, ...]:
    """Writes every finished evaluation in the folder `evaluations` to `output` in one of FORMS; what was written."""
    if form not in FORMS:
        raise PlanError([f"export form {form!r}: choose one of {', '.join(FORMS)}"])
    finished = results.read_all(evaluations) if evaluations.is_dir() else ()
    if not finished:
        raise DataError(f"{evaluations}: holds no finished evaluations; run qtool eval first")
    written: list[Path] = []
    for evaluation in finished:
        if evaluation.score.unit == "perplexity":
            raise DataError(f"{evaluations}: {evaluation.task} is a perplexity, which these files have no place for")
        rows = tuple(results.read_finished(evaluations, evaluation.task)[1].values())
        for name, text in FORMS[form](evaluation, rows).items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            written.append(path)
    return tuple(written)


def _lm_eval(evaluation: Evaluation, rows: Rows) -> dict[str, str]:
    """`samples_<task>.jsonl` as `--log_samples` writes it."""
    metric = evaluation.score.metric
    lines = [
        {
            "doc_id": number,
            "doc": {"id": row.id, "prompt": row.prompt},
            "target": row.target,
            "arguments": {"gen_args_0": {"arg_0": row.prompt, "arg_1": {}}},
            "resps": [[row.output]],
            "filtered_resps": [row.extracted],
            "filter": "none",
            "metrics": [metric],
            "doc_hash": row.prompt_digest or record_digest([row.prompt]),
            "prompt_hash": record_digest([row.prompt]),
            "target_hash": record_digest([row.target]),
            metric: row.score,
        }
        for number, row in enumerate(rows)
    ]
    return {f"samples_{evaluation.task}.jsonl": _lines(lines)}


def _nel(evaluation: Evaluation, rows: Rows) -> dict[str, str]:
    """A folder for the task, with nel's bundle and `results.jsonl`."""
    score = evaluation.score
    bundle = {
        "run_id": evaluation.run_digest,
        "config": {"model": evaluation.variant, "benchmark": evaluation.task, "seed": evaluation.seed},
        "benchmark": {
            "name": evaluation.task,
            "samples": score.items,
            "repeats": 1,
            "scores": {
                score.metric: {"value": score.value, "ci_lower": score.interval.low, "ci_upper": score.interval.high}
            },
        },
    }
    lines = [
        {
            "problem_idx": number,
            "repeat": 0,
            "reward": row.score,
            "prompt": row.prompt,
            "expected_answer": row.target,
            "extracted_answer": row.extracted,
            "model_response": row.output,
            "metadata": {"id": row.id, **dict(row.slices)},
        }
        for number, row in enumerate(rows)
    ]
    text = json.dumps(bundle, indent=1, ensure_ascii=False)
    return {f"{evaluation.task}/eval-qtool.json": text, f"{evaluation.task}/results.jsonl": _lines(lines)}


def _inspect(evaluation: Evaluation, rows: Rows) -> dict[str, str]:
    """One log of inspect_ai in its JSON form."""
    metric = evaluation.score.metric
    log = {
        "version": 2,
        "status": "success",
        "eval": {
            "task": evaluation.task,
            "task_version": evaluation.task_version,
            "model": evaluation.variant,
            "run_id": evaluation.run_digest,
            "dataset": {"samples": len(rows), "sample_ids": [row.id for row in rows]},
            "packages": {"qtool": evaluation.qtool_version},
        },
        "results": {
            "total_samples": len(rows),
            "completed_samples": len(rows),
            "scores": [{"name": metric, "metrics": {"mean": {"name": "mean", "value": evaluation.score.value}}}],
        },
        "samples": [
            {
                "id": row.id,
                "epoch": 1,
                "input": row.prompt,
                "target": row.target,
                "output": {"model": evaluation.variant, "completion": row.output},
                "scores": {metric: {"value": row.score, "answer": row.extracted}},
                "metadata": dict(row.slices),
            }
            for row in rows
        ],
    }
    return {f"{evaluation.task}.json": json.dumps(log, ensure_ascii=False)}


def _lines(objects: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


FORMS: Mapping[str, Callable[[Evaluation, Rows], dict[str, str]]] = {
    "lm_eval": _lm_eval,
    "nel": _nel,
    "inspect": _inspect,
}
