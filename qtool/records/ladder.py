"""What `until = "pass"` tried: `ladders/<variant>.json` of a run folder."""

from dataclasses import dataclass

from qtool.records.evaluation import VerdictName


@dataclass(frozen=True, slots=True)
class Rung:
    """One mixed variant that was made and evaluated: its size, how many layers got more bits, and its verdict over the
    critical tasks."""

    variant: str
    bytes: int
    lifted: int
    overall: VerdictName


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs tried, the smallest first, out of `planned`; `passed` names the first that passed, if one did.

    `level` is the one-sided level of each rung's ship test: 5 % shared among all planned rungs (Bonferroni), so that
    looking for one that passes makes a false PASS no likelier than testing a single variant does.
    """

    variant: str
    planned: int
    level: float
    rungs: tuple[Rung, ...]
    passed: str | None


def ladder_text(found: Ladder) -> str:
    """What was tried and how to read it, in one sentence or two."""
    tried = ", ".join(f"{rung.variant} ({rung.lifted} layers lifted) {rung.overall}" for rung in found.rungs)
    end = f"{found.passed} is the smallest that passed" if found.passed else "none passed"
    return (
        f'{found.variant}: until = "pass" tried {len(found.rungs)} of {found.planned} rungs, the smallest first: '
        f"{tried}; {end}. Each was tested at a one-sided level of {100 * found.level:.2g} % "
        f"({100 * found.level * found.planned:.2g} % shared among {found.planned}), so the search itself does not "
        "raise the chance of a false PASS"
    )
