"""Answers that failed before they could be wrong: empty, running in circles, cut off, without anything to compare."""

from qtool.evaluate.contract import Answer, Grade
from qtool.evaluate.items.extract import is_unanswered
from qtool.records.evaluation import AnswerFaults, ItemResult

_SHORTEST_LOOP = 12  # characters that must repeat before a tail counts as a loop: "ababab", not "100000"
_REPEATS = 4


def fault_of(answer: Answer, grade: Grade, *, generated: bool) -> str:
    """ "empty", "unanswered" (it never came out of its thinking), "looping", "truncated", "unparsable" or "" (none):
    the first that holds for a generated answer."""
    if not generated:
        return ""
    if not answer.text.strip():
        return "empty"
    if is_unanswered(answer):
        return "unanswered"
    if answer.finish == "length" and loops(answer.text):
        return "looping"
    if answer.finish == "length" and not grade.score:
        return "truncated"
    return "" if grade.parsed else "unparsable"


def loops(text: str) -> bool:
    """Whether `text` ends in one short passage repeated at least four times."""
    tail = text[-400:]
    for period in range(1, len(tail) // _REPEATS + 1):
        span = max(_REPEATS * period, _SHORTEST_LOOP)
        if span <= len(tail) and tail[-span:-period] == tail[-span + period :]:
            return True
    return False


def count(results: list[ItemResult]) -> AnswerFaults:
    """How many answers had each fault."""
    kinds = [result.fault for result in results]
    return AnswerFaults(
        empty=kinds.count("empty"),
        truncated=kinds.count("truncated"),
        looping=kinds.count("looping"),
        unparsable=kinds.count("unparsable"),
        unanswered=kinds.count("unanswered"),
        prompt_cut=sum(("prompt", "cut") in result.notes for result in results),
    )
