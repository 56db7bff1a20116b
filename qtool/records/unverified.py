"""A variant whose verification failed: kept to be looked at, refused where it would be used unless that is said."""

from qtool.errors import UnverifiedVariant
from qtool.records.variant import Variant


def problem_of(variant: Variant) -> str:
    """What verification found wrong; empty where it found nothing."""
    return "" if variant.verification is None else variant.verification.problem


def refuse_unverified(variant: Variant, where: object, *, allowed: bool = False) -> None:
    """Raises UnverifiedVariant unless `variant` was verified, or its use is `allowed` all the same."""
    problem = problem_of(variant)
    if problem and not allowed:
        raise UnverifiedVariant(str(where), problem)
