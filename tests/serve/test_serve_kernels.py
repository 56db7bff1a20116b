"""A server tells when it computes with other kernels than the bundle's times were measured with."""

from dataclasses import replace
from typing import Any

from synthetic_run import latency, variant

from qtool.records.bundle import Bundle, RuntimeSettings
from qtool.records.report import ReportRow
from qtool.serve.supervision.gate import kernels_beside_measured
from qtool.serve.supervision.messages import KERNELS_AS_MEASURED
from qtool.serve.watching.metrics import Metrics, exposition


class _Engine:
    def __init__(self, *kernels: tuple[str, str]) -> None:
        self.kernels = kernels


def bundle(kernels: tuple[tuple[str, str], ...] | None) -> Bundle:
    made = variant("w8a16")
    profile = None if kernels is None else replace(latency("w8a16", 10.0), kernels=kernels)
    row = ReportRow(made, (), profile, "PASS", 0.5, 1.1, True, ())
    runtime = RuntimeSettings("bfloat16", 256, 8, 100, 10, 1.0, None)
    return Bundle(1, "b", made, (), (), runtime, row, "0.1.0")


def test_the_same_kernels_on_as_many_layers_are_as_measured() -> None:
    engine: Any = _Engine(("a", "int8 compiled"), ("b", "int8 compiled"), ("head", "plain"))
    measured = (("int8 compiled", "2 layers"), ("plain", "1 layers"))
    assert kernels_beside_measured(engine, bundle(measured)) == KERNELS_AS_MEASURED


def test_other_kernels_are_named_with_those_that_were_measured() -> None:
    engine: Any = _Engine(("a", "int8 by torch"), ("head", "plain"))
    told = kernels_beside_measured(engine, bundle((("int8 compiled", "1 layers"), ("plain", "1 layers"))))
    assert told is not None
    assert told.startswith("int8 by torch (1 layers), plain (1 layers) where int8 compiled (1 layers)")


def test_a_bundle_that_was_not_timed_says_nothing() -> None:
    engine: Any = _Engine(("a", "x"))
    assert kernels_beside_measured(engine, bundle(None)) is None


def test_the_gauge_says_so() -> None:
    metrics = Metrics("m", "v", "f")
    assert b'qtool_kernels_differ{model="m",variant="v"} 0.0' in exposition([metrics])
    metrics.other_kernels(True)
    assert b'qtool_kernels_differ{model="m",variant="v"} 1.0' in exposition([metrics])
