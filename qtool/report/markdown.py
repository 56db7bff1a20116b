"""report.md: the same report for a pull request or a terminal pager."""

from collections.abc import Sequence

from qtool.records.report import Report, ReportRow
from qtool.report.drawing.certificate import headline, markdown_rows
from qtool.report.texts.numbers import (
    bytes_text,
    difference_text,
    interval_text,
    margin_text,
    median,
    quantile,
    quantile_text,
    score_text,
)
from qtool.report.texts.views import (
    bound_levels,
    churn_text,
    environment,
    evaluation_of,
    faults_text,
    ledger_totals,
    recipe_text,
    status,
    tasks_of,
)


def document(report: Report) -> str:
    """The whole report as Markdown."""
    parts = [f"# {_escape(report.run)}: may it ship?", f"**{_escape(report.recommendation.reason)}**"]
    if report.notes:
        parts.append("Read with care:\n\n" + "\n".join(f"- {_escape(note)}" for note in report.notes))
    levels = bound_levels(report)
    bounds = f"Differences stand between one-sided {levels.common} bounds{levels.others and '; ' + levels.others}."
    parts += ["## Verdicts", _verdicts(report), _escape(bounds), *_rejections(report)]
    for task in tasks_of(report):
        parts += [f"## {_escape(task)}", _task(report, task), *_slices(report, task)]
    parts += ["## Latency", _latency(report), "## Calibration", _calibration(report)]
    parts += ["## How each variant was made", _ledger(report), "## Environment"]
    parts.append("\n".join(f"- {name}: {_escape(value)}" for name, value in environment(report)))
    return "\n\n".join(parts) + "\n"


def _verdicts(report: Report) -> str:
    tasks = tasks_of(report)
    head = ["variant", "overall", *tasks, "size", "of base", "median time", "speed", "front"]
    rows = [
        [
            row.variant.name,
            status(row, report),
            *(_verdict(row, task) for task in tasks),
            bytes_text(row.variant.bytes),
            f"{100 * row.bytes_ratio:.0f} %",
            quantile_text(median(row.latency)),
            f"{row.speedup:.2f}×" if row.speedup else "not measured",
            "yes" if row.on_front else "",
        ]
        for row in report.rows
    ]
    return _table(head, rows)


def _verdict(row: ReportRow, task: str) -> str:
    found = evaluation_of(row, task)
    if found is None:
        return "not evaluated"
    if found.comparison is None:
        return score_text(found.score)
    return f"{found.comparison.verdict} {difference_text(found.comparison, found.score)}, n {found.score.items}"


def _rejections(report: Report) -> list[str]:
    lines = [
        f"- {_escape(row.variant.name)}: {_escape('; '.join(row.rejected_because))}."
        for row in report.rows
        if row.rejected_because
    ]
    return ["### Why not the others", "\n".join(lines)] if lines else []


def _task(report: Report, task: str) -> str:
    rows = []
    for row in report.rows:
        found = evaluation_of(row, task)
        if found is None:
            continue
        compared = found.comparison
        rows.append(
            [
                row.variant.name,
                compared.verdict if compared else "baseline",
                score_text(found.score),
                difference_text(compared, found.score) if compared else "",
                margin_text(compared, found.score) if compared else "",
                churn_text(found),
                faults_text(found),
                compared.reason if compared else "",
            ]
        )
    return _table(
        ["variant", "verdict", "score", "difference", "margin", "answers changed", "broken answers", "reason"], rows
    )


def _slices(report: Report, task: str) -> list[str]:
    rows = []
    for row in report.rows:
        found = evaluation_of(row, task)
        for part in found.slices if found and row.variant.name != report.baseline else ():
            factor = 100 if part.score.is_fraction else 1
            rows.append(
                [
                    row.variant.name,
                    f"{part.slice} = {part.value}",
                    score_text(part.score),
                    score_text(part.baseline) if part.baseline else "",
                    interval_text(part.difference, factor) if part.difference else "",
                    part.verdict or "",
                ]
            )
    return [_table(["variant", "slice", "score", "base", "difference", "verdict"], rows)] if rows else []


def _latency(report: Report) -> str:
    rows = []
    for row in report.rows:
        for level in row.latency.levels if row.latency else ():
            for name, entries in (("TTFT", level.ttft), ("TPOT", level.tpot), ("ITL", level.itl), ("e2e", level.e2e)):
                cells = [quantile_text(quantile(entries, q)) for q in (0.5, 0.95, 0.99)]
                rows.append([row.variant.name, str(level.concurrency), name, *cells])
    if not rows:
        return "Not measured in this run."
    return _table(["variant", "in flight", "measure", "p50", "p95", "p99"], rows)


def _calibration(report: Report) -> str:
    found = report.calibration
    if found is None:
        return "No calibration in this run."
    text = (
        f"Set {_escape(found.set_name)}: {found.sequences:,} sequences, {found.tokens:,} tokens, seed {found.seed}, "
        f"observers {_escape(', '.join(found.observers))}. Enough? {found.verdict.replace('_', ' ')}"
    )
    text += f": {_escape(headline(found))}." if headline(found) else "."
    rows = [[source.tag, str(source.read), str(source.used)] for source in found.sources]
    parts = [text, _table(["source", "rows read", "rows used"], rows)]
    if found.certificate is not None and found.certificate.tags:
        parts.append(_table(*markdown_rows(found.certificate)))
    return "\n\n".join(parts)


def _ledger(report: Report) -> str:
    rows = []
    for row in report.rows:
        total = ledger_totals(row.variant)
        error = f"{total.worst_weight_error:.3g} ({total.worst_layer})" if total.worst_weight_error is not None else ""
        rows.append(
            [
                row.variant.name,
                recipe_text(row.variant.recipe),
                str(total.layers),
                ", ".join(f"{scheme} × {count}" for scheme, count in total.schemes) or "as published",
                str(total.fallbacks) + "".join(f"; {reason} ({count})" for reason, count in total.reasons),
                error,
                total.bit_identical,
            ]
        )
    head = ["variant", "recipe", "layers", "stored as", "fallbacks", "worst weight error", "tensors bit-identical"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, head)) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _escape(text: str) -> str:
    for mark in ("\\", "`", "*", "_", "|", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())
