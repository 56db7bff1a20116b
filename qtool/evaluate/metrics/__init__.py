"""Values of answers; a metric is a module and its file name is its name.

`evaluate:<path or name>` takes a Hugging Face `evaluate` module instead.
"""

from typing import cast

from qtool import catalog
from qtool.evaluate.contract import Metric

_FOREIGN = "evaluate:"


def load_metric(name: str) -> Metric:
    """The metric called `name`: a plugin, or a Hugging Face `evaluate` module after "evaluate:"."""
    if name.startswith(_FOREIGN):
        from qtool.evaluate.hugging_face_metric import ForeignMetric

        return ForeignMetric(name.removeprefix(_FOREIGN))
    return cast(Metric, catalog.load(__name__, name, kind="metric"))
