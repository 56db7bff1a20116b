"""The error tree: each class is one kind of answer a user gets, with its exit code: never 0, 1 or 2, which are
verdicts."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class QtoolError(Exception):
    """A failure qtool can explain in one line: what, where, and what to do."""

    exit_code = 11


class UsageError(QtoolError):
    """The command or the plan asks for something that cannot be meant."""

    exit_code = 10


class UnknownName(UsageError):
    """A plugin, model or file name that does not exist; says which ones are near."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        available = sorted(known)
        near = get_close_matches(name, available, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(available) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class PlanError(UsageError):
    """A plan, task or set file is wrong; carries every problem found, one a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class MissingPackage(UsageError):
    """An optional package is not installed; names the extra that brings it."""

    def __init__(self, package: str, needed_by: str, extra: str) -> None:
        super().__init__(f"{needed_by} needs the package {package!r}; install it with: pip install 'qtool[{extra}]'")


class ModelError(QtoolError):
    """A model folder is missing, corrupt, or of a kind qtool does not run."""

    exit_code = 3


class DataError(QtoolError):
    """A calibration set or task data cannot be used; names file and line."""

    exit_code = 4


class NumericError(QtoolError):
    """Weights or activations hold NaN or infinity; names the layer and the count."""

    exit_code = 5


class QuantizationError(QtoolError):
    """A scheme does not fit the model, or a written variant does not match what was computed."""

    exit_code = 6


class UnverifiedVariant(QuantizationError):
    """A variant that was written and kept, and does not compute what it should; says where it differs."""

    def __init__(self, folder: str, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"{folder}: unverified: {problem}; the variant is kept there, and eval and bundle refuse it without "
            "--allow-unverified"
        )


class MismatchError(QtoolError):
    """Two artifacts that must belong together do not: other model, tokenizer or items."""

    exit_code = 7


class StoreError(QtoolError):
    """A folder cannot be read or written: disk full, read-only, in use, or not finished."""

    exit_code = 8


class CapacityError(QtoolError):
    """This machine cannot hold or execute what was asked: memory, kernel, port."""

    exit_code = 9


class RequestError(QtoolError):
    """One request to the engine or the server is invalid; all others are unaffected."""

    exit_code = 10
