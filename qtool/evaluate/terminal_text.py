"""Findings as a person reads them: one table, then a sentence for each verdict."""

from qtool.evaluate.session import Findings
from qtool.evaluate.verdicts.pooled import sentence
from qtool.records.evaluation import Agreement, Evaluation, Forecast, Parting
from qtool.records.quantile_rule import samples_needed

_COLUMNS = (
    "task",
    "n",
    "score",
    "95 % interval",
    "change",
    "bounds",
    "flips",
    "floor",
    "p50 ms",
    "p95 ms",
    "items/s",
    "verdict",
)

_SERVER_TEMPLATE = {
    "other": "the server's own chat template makes other tokens of a message than the tokenizer given; its chat API is "
    "asked in another way than these questions were",
    "not told": "the server does not tell what its chat template makes of a message (/tokenize), so whether its chat "
    "API is asked as these questions were is not known",
}


def render(found: Findings) -> str:
    """The findings as text for a terminal."""
    rows = [_COLUMNS, *(_row(each) for each in found.evaluations)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for each in found.evaluations:
        lines += _remarks(each)
    if found.worse:
        named = ", ".join(f"{worse.task} (p = {worse.p_holm:.2g})" for worse in found.worse)
        lines.append(f"got worse, after Holm's correction: {named}")
    if found.pooled is not None:
        lines.append(sentence(found.pooled))
    if found.overall is not None:
        lines.append(f"overall: {found.overall}")
    lines += _asked(found.evaluations)
    lines.append(f"written to {found.output}")
    return "\n".join(lines)


def _asked(evaluations: tuple[Evaluation, ...]) -> list[str]:
    """Which tasks were asked through the chat template, in words."""
    chat = [each.task for each in evaluations if each.chat]
    if not chat:
        return []
    named = "" if len(chat) == len(evaluations) else f" ({', '.join(chat)})"
    return [f"asked through the model's chat template{named}; --no-chat asks with plain prompts"]


def _parting(found: Parting) -> str:
    """Whether what is served answers as the baseline does, token by token."""
    same = f"same tokens as the baseline in {found.same:,} of {found.items:,} answers"
    if found.item is None:
        return same
    return (
        f"{same}; the first to part is item {found.item!r} at token {found.token}: {found.variant_text!r} "
        f"where the baseline wrote {found.baseline_text!r}"
    )


def _row(each: Evaluation) -> tuple[str, ...]:
    points = each.score.is_fraction
    comparison, churn = each.comparison, each.churn
    flips = "" if churn is None else f"{churn.harmful} down, {churn.beneficial} up, {churn.wrong_to_other_wrong} other"
    return (
        each.task,
        f"{each.score.items:,}",
        _value(each.score.value, points),
        f"{_value(each.score.interval.low, points)} to {_value(each.score.interval.high, points)}",
        "" if comparison is None else f"{100 * comparison.difference:+.2f}",
        "" if comparison is None else f"{100 * comparison.interval.low:+.2f} to {100 * comparison.interval.high:+.2f}",
        flips,
        _floor(each),
        _milliseconds(each.timing.item_ms_p50, 0.5),
        _milliseconds(each.timing.item_ms_p95, 0.95),
        f"{each.score.items / each.timing.seconds:.1f}" if each.timing.seconds else "",
        ""
        if comparison is None
        else comparison.verdict + ("" if each.tier in (None, "critical") else f" ({each.tier})"),
    )


def _value(value: float, points: bool) -> str:
    return f"{100 * value:.1f} %" if points else f"{value:.3f}"


def _milliseconds(value: float | None, q: float) -> str:
    return f"needs n {samples_needed(q)}" if value is None else f"{value:.1f}"


def _floor(each: Evaluation) -> str:
    """The baseline's own flips, and how many times as often the variant's answers changed: at least, where the baseline
    showed none, and where even that is below 1, how large the floor may be."""
    multiple = None if each.churn is None else each.churn.multiple_of_floor()
    if each.churn is None or multiple is None:
        return ""
    own = f"{each.churn.floor_changed}/{each.churn.floor_items}"
    times, at_least = multiple
    if times is not None:
        return f"{own}, x {times:.1f} (at least {at_least:.1f})"
    if at_least >= 1:
        return f"{own}, x {at_least:.1f} or more"
    assert each.churn.floor_interval is not None, "there is a multiple"
    return f"{own}, at most {100 * each.churn.floor_interval.high:.1f} %"


def _remarks(each: Evaluation) -> list[str]:
    found = []
    if each.comparison is not None:
        found.append(f"{each.task}: {each.comparison.verdict}: {each.comparison.reason}")
        failing = [f"{s.slice} = {s.value}" for s in each.slices if s.verdict == "FAIL"]
        if failing:
            found.append(f"{each.task}: slices that fail by themselves: {', '.join(failing)}")
    if each.agreement is not None and each.agreement.top1_share is not None:
        kl = each.agreement.kl_nats
        divergence = "" if kl is None else f", KL divergence {kl:.4f} nats a token"
        if each.agreement.kl_p99_nats is not None:
            divergence += f" (99 % of them below {each.agreement.kl_p99_nats:.3f})"
        if each.agreement.expected_acceptance is not None:
            divergence += f", expected acceptance {100 * each.agreement.expected_acceptance:.2f} %"
        found.append(
            f"{each.task}: same most likely token in {100 * each.agreement.top1_share:.2f} % of "
            f"{each.agreement.top1_tokens:,} places{divergence}"
        )
    found += _how_asked(each)
    faults = [
        f"{count} {name}"
        for name, count in (
            ("empty", each.faults.empty),
            ("truncated", each.faults.truncated),
            ("that never came out of the model's thinking", each.faults.unanswered),
            ("looping", each.faults.looping),
            ("without anything to compare", each.faults.unparsable),
            ("with a prompt cut to the model's context", each.faults.prompt_cut),
        )
        if count
    ]
    if faults:
        found.append(f"{each.task}: answers {', '.join(faults)}")
    if each.also:
        named = ", ".join(f"{score.metric} {100 * score.value:.1f} %" for score in each.also)
        found.append(f"{each.task}: {named}")
    if each.decided:
        found.append(f"{each.task}: {each.decided:,} of {each.score.items:,} answers decided by teacher forcing")
    if each.forecast is not None:
        found.append(f"{each.task}: {_foretold(each.forecast)}")
    return found


def _how_asked(each: Evaluation) -> list[str]:
    """Digits, length, repeats, and how the questions were put."""
    found = []
    if each.agreement is not None and each.agreement.digit_top1_share is not None:
        found.append(f"{each.task}: {_digits(each.agreement)}")
    if each.length is not None:
        found.append(f"{each.task}: {_length(each)}")
    if each.repeats > 1:
        found.append(f"{each.task}: {each.score.items // each.repeats:,} items, {each.repeats} answers to each")
    if each.unlike_baseline:
        found.append(f"{each.task}: asked otherwise than the baseline: {', '.join(each.unlike_baseline)}")
    if each.asked is not None and each.asked.server_template in ("other", "not told"):
        found.append(f"{each.task}: {_SERVER_TEMPLATE[each.asked.server_template]}")
    if each.parting is not None and each.engine == "openai":
        found.append(f"{each.task}: {_parting(each.parting)}")
    return found


def _digits(found: Agreement) -> str:
    """How the tokens fared of which arithmetic is made, and how sure the baseline was of those that were lost."""
    lost = (
        "" if found.digit_lead_lost_share is None else f", {100 * found.digit_lead_lost_share:.2f} % of the lead lost"
    )
    overall = "" if found.lead_lost_share is None else f" (all tokens: {100 * found.lead_lost_share:.2f} %)"
    share = 100 * (found.digit_top1_share or 0.0)
    return f"same digit or operator in {share:.2f} % of {found.digit_tokens:,} places{lost}{overall}"


def _length(each: Evaluation) -> str:
    """How much longer the answers are, and what they run into; with the time to one."""
    assert each.length is not None
    found = each.length
    times = f"{found.ratio:.3f} [{found.interval.low:.3f}, {found.interval.high:.3f}]"
    text = f"{found.tokens:.1f} tokens an answer, {times} times the baseline's {found.baseline_tokens:.1f}"
    if found.at_limit or found.baseline_at_limit:
        text += f"; {found.at_limit:,} at the limit ({found.baseline_at_limit:,} of the baseline)"
    if found.looping or found.baseline_looping:
        text += f", {found.looping:,} in circles ({found.baseline_looping:,})"
    seconds = each.timing.answer_seconds
    return text if seconds is None else f"{text}; {seconds:.2f} seconds an answer"


def _foretold(forecast: Forecast) -> str:
    share = f"{100 * forecast.predicted:.1f} %"
    if forecast.interval is not None:
        share += f" [{100 * forecast.interval.low:.1f}, {100 * forecast.interval.high:.1f}]"
    if forecast.measured is None:
        return f"answers expected to change if weights are rounded to 4 bits, a scale a row: {share}"
    return f"answers expected to change {share}, measured {100 * forecast.measured:.1f} %"
