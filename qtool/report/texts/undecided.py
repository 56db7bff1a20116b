"""What would decide an undecided comparison, in the same words wherever a report says it."""

from qtool.records.evaluation import Comparison


def what_decides(comparison: Comparison) -> str:
    """`about 400 items would decide`, or why no number of items does."""
    if comparison.base_fails:
        return "more items will not decide it, since the base cannot do this task"
    if comparison.items_to_decide is not None:
        return f"about {comparison.items_to_decide:,} items would decide"
    return f"more items will not decide it: {comparison.reason}"
