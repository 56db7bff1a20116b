"""Words of the command line about margins, tiers and scores, as numbers; each wrong one is told with what to write."""

from collections.abc import Sequence

from qtool.errors import UsageError


def margins(said: float | str | None) -> tuple[float | None, float | None]:
    """(points, percent of the base's score): `2` and "2" are points, "2%" is percent; (None, None) for nothing said."""
    if said is None:
        return None, None
    text = str(said).strip()
    relative = text.endswith("%")
    try:
        value = float(text.rstrip("% "))
    except ValueError:
        raise UsageError(
            f"--margin {said}: give points, such as 2, or a share of the base's score, such as 2%"
        ) from None
    return (None, value) if relative else (value, None)


def pairs(option: str, said: Sequence[str] | None) -> dict[str, str]:
    """TASK=VALUE texts as a dictionary."""
    found = {}
    for text in said or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text}: give TASK=VALUE, such as {option} arithmetic=...")
        found[name.strip()] = value.strip()
    return found


def share(option: str, task: str, text: str) -> float:
    """A score as a fraction: 0.62 or 62%."""
    try:
        value = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{option} {task}={text}: give a score between 0 and 1, such as 0.62, or 62%")
    return value
