"""A verdict's sentence calls a gain a gain: no loss is a negative number of points."""

import numpy as np
import pytest

from qtool.evaluate.verdicts.paired import reason
from qtool.evaluate.verdicts.verdict import bounds


@pytest.mark.parametrize(
    ("harmful", "beneficial", "decision", "said"),
    [
        (6, 8, "PASS", "points are lost"),
        (0, 60, "PASS", "points are gained"),
        (3, 5, "UNDECIDED", "points gained and"),
        (60, 0, "FAIL", "at least"),
    ],
)
def test_no_loss_is_negative(harmful: int, beneficial: int, decision: str, said: str) -> None:
    gains = [-1.0] * harmful + [1.0] * beneficial + [0.0] * (1000 - harmful - beneficial)
    text = reason(decision, bounds(np.array(gains)), 0.03, 2000, None)
    assert said in text
    assert "-" not in text.replace("--until-decided", "")
    if beneficial > harmful and decision == "PASS":
        assert "measured a gain of" in text
