"""From a task's rows to its evaluation: score, slices, faults and, beside a baseline, comparison, churn, forecast."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qtool import __version__
from qtool.evaluate import answer_length, base_check, results
from qtool.evaluate.asking import agreement
from qtool.evaluate.asking.forecast import foretell
from qtool.evaluate.asking.local import computed_in
from qtool.evaluate.asking.noise_floor import read_floor
from qtool.evaluate.asking.questions import Work
from qtool.evaluate.items import tasks
from qtool.evaluate.items.wording import PROBE, as_chat, wording
from qtool.evaluate.verdicts import faults, flips, metric_scale, paired, sequential
from qtool.records.evaluation import Agreement, Asking, Churn, Comparison, Evaluation, Forecast, ItemResult, TaskTiming
from qtool.store.digest import record_digest


def conclude(work: Work, rows: list[ItemResult], *, baseline: Path | None, timing: TaskTiming) -> Evaluation:
    """The evaluation of `rows`, written with them and, beside a baseline, with the items that flipped."""
    asked = work.asked
    against = "" if baseline is None else results.read_finished(baseline, asked.task.name)[0].run_digest
    before = None if baseline is None else _baseline_rows(baseline, asked.task.name, rows)
    terms = terms_of(work, rows, before, against)
    noise = results.read_noise(work.output, asked.task.name, work.digest)
    asking = how_asked(work)
    comparison, churn, forecast, agreed = None, None, foretell(rows, noise), None
    flipped: tuple[flips.Flip, ...] = ()
    if baseline is not None and before is not None:
        comparison, churn, forecast = _beside(baseline, before, rows, work, terms, timing)
        agreed = _agreement(baseline, before, rows, work)
        flipped = flips.flips(before, rows, perfect=work.metric.PERFECT)
        flips.write_flips(work.output, asked.task.name, flipped)
    evaluation = Evaluation(
        format_version=1,
        variant=work.subject.name,
        variant_digest=work.subject.weights_digest,
        task=asked.task.name,
        task_version=asked.task.version,
        task_digest=tasks.task_digest(asked.task),
        items_digest=tasks.items_digest(asked.items),
        score=metric_scale.score_of(
            asked.task.metric, work.metric, rows, paired.clusters_of(rows, asked.task.together)
        ),
        comparison=comparison,
        churn=churn,
        slices=paired.slices(asked.task.slices, before, rows, terms),
        faults=faults.count(rows),
        timing=timing,
        engine=work.settings.backend,
        server=work.subject.server,
        asked=asking,
        unlike_baseline=() if baseline is None else _unlike(asking, baseline, asked.task.name),
        parting=None if before is None else flips.parting(before, rows),
        seed=work.settings.seed,
        qtool_version=__version__,
        tokenizer_digest=work.subject.tokenizer_digest,
        run_digest=work.digest,
        margin_points=asked.margin_points,
        breakdowns=flips.breakdowns(asked.items, rows, flipped),
        forecast=forecast,
        agreement=agreed,
        decided=sum(bool(row.decided_by) for row in rows),
        also=(*metric_scale.also(rows), *metric_scale.at_least_once(rows, asked.task.repeats, work.metric)),
        chance=base_check.chance_of(asked.task, asked.items),
        chat=bool(work.settings.chat) and asked.task.scorer != "rolling",
        base_digest=work.subject.base_digest,
        critical=asked.task.weight == "critical",
        tier=asked.task.weight,
        cluster=asked.task.together,
        margin_percent=asked.task.margin_percent,
        repeats=asked.task.repeats,
        length=None
        if before is None
        else answer_length.length(before, rows, paired.clusters_of(rows, asked.task.together)),
        dtype=computed_in(work.subject, work.settings),
    )
    results.finish(work.output, evaluation, rows)
    return evaluation


def how_asked(work: Work) -> Asking:
    """How this work's questions are put to the model."""
    chat = bool(work.settings.chat) and work.asked.task.scorer != "rolling"
    language = work.model.language() if chat else None
    worded = wording(work.asked.task, language) == "chat"
    task = as_chat(work.asked.task) if worded else work.asked.task
    return Asking(
        template=record_digest(language.chat(PROBE)) if language is not None else "",
        max_new_tokens=task.max_new_tokens,
        temperature=task.temperature,
        context_tokens=work.settings.context_tokens or work.subject.context_tokens,
        server=work.subject.server,
        server_template=work.subject.server_template if chat else "",
    )


def _unlike(asking: Asking, baseline: Path, task: str) -> tuple[str, ...]:
    before = results.read_finished(baseline, task)[0].asked
    return () if before is None else asking.differences(before)


def terms_of(work: Work, rows: Sequence[ItemResult], before: Sequence[ItemResult] | None, against: str) -> paired.Terms:
    """What this work's comparison with the answers `before`, known as `against`, is made under, at a look at `rows`."""
    task, asked = work.asked.task, work.asked
    margin = metric_scale.margin_of(work.metric, asked.margin_points, task.margin_percent, before or rows)
    earlier = results.earlier_looks(
        work.output, task.name, work.digest, against=against, margin=margin, percent=task.margin_percent
    )
    history = sequential.look(earlier, len(rows), sequential.Plan(asked.level, asked.until))
    return paired.Terms(
        metric_name=task.metric,
        metric=work.metric,
        margin_points=asked.margin_points,
        cluster=task.together,
        margin_percent=task.margin_percent,
        repeats=task.repeats,
        level=history[-1].level,
        history=history,
        whole_level=asked.level,
    )


def _baseline_rows(baseline: Path, task: str, rows: Sequence[ItemResult]) -> list[ItemResult]:
    _, answered = results.read_finished(baseline, task)
    return results.matched(answered, rows, where=baseline)


def _agreement(baseline: Path, before: list[ItemResult], rows: list[ItemResult], work: Work) -> Agreement | None:
    """Measured anew only where the model is open for its answers anyway; else what the last run found."""
    task = work.asked.task.name
    if work.subject.remote:
        return None  # a server gives no log-probabilities of given text
    if not work.model.is_open:
        return results.earlier_agreement(work.output, task, work.digest)
    evaluation, _ = results.read_finished(baseline, task)
    samples = agreement.read_samples(baseline, task, evaluation.run_digest)
    engine, language = work.model.get()
    return agreement.agree(samples, agreement.measure(samples, engine), before, rows, decode=language.decode)


def _beside(
    baseline: Path,
    before: list[ItemResult],
    rows: list[ItemResult],
    work: Work,
    terms: paired.Terms,
    timing: TaskTiming,
) -> tuple[Comparison, Churn, Forecast | None]:
    evaluation, _ = results.read_finished(baseline, work.asked.task.name)
    floor = read_floor(baseline, work.asked.task.name, evaluation.run_digest)
    compared = paired.compare(
        evaluation.variant, before, rows, terms, seconds_per_item=timing.seconds / max(1, len(rows))
    )
    comparison = base_check.checked(
        replace(compared, baseline_digest=evaluation.run_digest),
        terms.metric_name,
        terms.metric,
        before,
        chance=base_check.chance_of(work.asked.task, work.asked.items),
        expected=work.asked.task.base_score,
        clusters=paired.clusters_of(before, work.asked.task.together),
    )
    churn = paired.churn(before, rows, terms, floor)
    noise = results.read_noise(baseline, work.asked.task.name, evaluation.run_digest)
    forecast = foretell(before, noise, weight_error=work.subject.weight_error, after=rows, measured=churn.changed_share)
    return comparison, churn, forecast
