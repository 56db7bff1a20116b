"""report.md: the same report for a pull request or a terminal pager."""

from collections.abc import Sequence

from qtool.records.cost import Costs
from qtool.records.evaluation import SliceScore
from qtool.records.report import Report, ReportRow
from qtool.report.choose import why_not
from qtool.report.commands import behind
from qtool.report.decision import decision
from qtool.report.drawing.certificate import headline, markdown_rows
from qtool.report.texts.numbers import (
    difference_text,
    dollars_text,
    interval_text,
    margin_text,
    quantile,
    quantile_text,
    score_text,
    value_text,
)
from qtool.report.texts.overview import overview
from qtool.report.texts.views import (
    SMALL_SLICE,
    bound_levels,
    churn_text,
    environment,
    evaluation_of,
    faults_text,
    ledger_totals,
    recipe_text,
    slice_table,
    status,
    tasks_of,
)

MOST_CHARACTERS = 60_000  # a comment on GitHub takes 65,536
_ROOM_FOR_NOTE = 400


def document(report: Report) -> str:
    """The report as Markdown, the decision first; what does not fit into 60,000 characters is named and left out."""
    levels = bound_levels(report)
    bounds = f"Differences stand between one-sided {levels.common} bounds{levels.others and '; ' + levels.others}."
    parts = [*_decision(report), "## Verdicts", _verdicts(report), _escape(bounds), _overview(report)]
    parts += _rejections(report)
    for title, texts in _sections(report):
        section = ["## " + title, *texts]
        if len("\n\n".join([*parts, *section])) <= MOST_CHARACTERS - _ROOM_FOR_NOTE:
            parts += section
        else:
            parts.append(f"{title}: left out here for its length; it is in report.html.")
    return _cut("\n\n".join(parts) + "\n")


def _cut(text: str) -> str:
    """`text`, or as much of it as may stand in a comment: a run of a great many variants has a long first table."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - _ROOM_FOR_NOTE].rpartition("\n")[0] + "\n\nThe rest is in report.html.\n"


def _sections(report: Report) -> list[tuple[str, list[str]]]:
    """Everything below the decision, the most telling first."""
    found = [(_escape(task), [_task(report, task)]) for task in tasks_of(report)]
    found.append(("Latency", [_latency(report)]))
    if report.costs is not None:
        found.append(("Cost", [_cost(report.costs)]))
    found += [("Calibration", [_calibration(report)]), ("How each variant was made", [_ledger(report)])]
    facts = "\n".join(f"- {name}: {_escape(value)}" for name, value in environment(report))
    typed = "\n".join(f"- {_escape(entry.what)}: <code>{_escape(entry.command)}</code>" for entry in behind(report))
    found.append(("Provenance", [facts, "The command behind each number:", typed]))
    slices = ((task, _slices(report, task)) for task in tasks_of(report))
    return found + [(f"{_escape(task)}, by slice", table) for task, table in slices if table]


def _decision(report: Report) -> list[str]:
    """The first screen of the page, in Markdown."""
    found = decision(report)
    parts = [
        f"# {_escape(report.run)}: may it ship?",
        f"**{found.word}: {_escape(found.title)}.** {_escape(report.recommendation.reason)}",
    ]
    if found.savings:
        rows = [[saving.what, saving.after, saving.before, saving.change] for saving in found.savings]
        parts.append(_table(["", report.recommendation.variant or "", report.baseline, "change"], rows))
    if found.cautions:
        cautions = "\n".join(f"- {_escape(caution.text)}" for caution in found.cautions)
        parts.append(f"Read with care:\n\n{cautions}")
    if found.open:
        parts.append("Undecided:\n\n" + "\n".join(f"- {_escape(f'{q.variant}: {q.needs}')}" for q in found.open))
        commands = [question.command for question in found.open if question.command][:3]
        parts += ["```\n" + "\n".join(commands).replace("`", "") + "\n```"] if commands else []
    return parts


def _overview(report: Report) -> str:
    columns = overview(report)[1:]
    rows = [
        [row.variant.name, *(" ".join(part for part in (cell.text, cell.detail) if part) for cell in cells),
         "yes" if row.on_front else ""]
        for row in report.rows
        for cells in [[column.cell(row) for column in columns]]
    ]  # fmt: skip
    meanings = "; ".join(f"{column.head}: {column.means}" for column in columns)
    return f"{_table(['variant', *(column.head for column in columns), 'on the front'], rows)}\n\n{_escape(meanings)}."


def _cost(costs: Costs) -> str:
    rows = [
        [
            load.variant,
            f"{load.rate_per_second:g} requests/s" if load.rate_per_second else f"{load.concurrency} in flight",
            f"{load.good_tokens_per_second:,.0f}",
            _dollars(load.dollars_per_million_tokens),
            _dollars(load.dollars_per_thousand_answers),
        ]
        for load in costs.loads
    ]
    table = _table(["variant", "load", "good tokens/s", "per million tokens", "per 1,000 answers"], rows)
    return table + "\n\n" + "\n".join(f"- {_escape(what)}: {_escape(value)}" for what, value in costs.assumptions)


def _dollars(value: float | None) -> str:
    return dollars_text(value) if value is not None else "no good answer"


def _verdicts(report: Report) -> str:
    """A task a line, a variant a column: as on the page."""
    rows = [
        [task if task in report.critical_tasks else f"{task} (not critical)",
         *(_verdict(row, task) for row in report.rows)]
        for task in tasks_of(report)
    ]  # fmt: skip
    overall = ["overall", *(status(row, report) for row in report.rows)]
    return _table(["task", *(row.variant.name for row in report.rows)], [overall, *rows])


def _verdict(row: ReportRow, task: str) -> str:
    found = evaluation_of(row, task)
    if found is None:
        return "not evaluated"
    if found.comparison is None:
        return score_text(found.score)
    return f"{found.comparison.verdict} {difference_text(found.comparison, found.score)}, n {found.score.items}"


def _rejections(report: Report) -> list[str]:
    lines = [f"- {_escape(name)}: {_escape(why)}." for name, why in why_not(report)]
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
    table = slice_table(report, task)
    rows = [[name, *("" if part is None else _slice(part) for part in parts)] for name, parts in table.rows]
    if table.small:
        rows.append([f"{table.small} slices of fewer than {SMALL_SLICE} items", *table.means])
    return [_table(["slice", *(row.variant.name for row in report.rows)], rows)] if rows else []


def _slice(part: SliceScore) -> str:
    if part.difference is None:
        return score_text(part.score)
    return f"{value_text(part.score)}, {interval_text(part.difference, 100 if part.score.is_fraction else 1)}"


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
