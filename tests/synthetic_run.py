"""A made-up run folder: every record, no model. For tests of what reads finished folders."""

from dataclasses import replace
from pathlib import Path

from qtool.records.calibration import Calibration, LayerRange, SourceCount
from qtool.records.certificate import (
    CalibrationVerdict,
    Certificate,
    CurvePoint,
    ExpertTokens,
    HeldOutClip,
    LayerCertificate,
    RangeCertificate,
    TagCertificate,
)
from qtool.records.evaluation import (
    AnswerFaults,
    Churn,
    Comparison,
    Evaluation,
    Interval,
    Score,
    SliceScore,
    TaskTiming,
    VerdictName,
)
from qtool.records.latency import LatencyProfile, LoadLevel, MachineState, Quantile
from qtool.records.model import ModelIdentity
from qtool.records.plan import Plan, PlannedTask, PlannedVariant
from qtool.records.variant import LedgerRow, Recipe, Variant, Verification
from qtool.store.run_directory import write_record

BASE = ModelIdentity(
    "reference-128", "reference-128", None, "LlamaForCausalLM", "b" * 64, "c" * 64, "bfloat16", 900_000, 1_800_000
)
MARGIN = 0.01
PLAN = Plan(
    base="reference-128",
    name="demo",
    variants=tuple(
        PlannedVariant(name, Recipe(scheme=scheme, method="rtn"))
        for name, scheme in (("w8a16", "w8a16"), ("w4a16", "w4a16"))
    ),
    tasks=(PlannedTask("arithmetic"), PlannedTask("facts", critical=False)),
)


def variant(name: str, scheme: str = "w8a16", *, size: int = 900_000, fallbacks: int = 0) -> Variant:
    """A variant record of `size` bytes with two ledger rows."""
    base = scheme == "base"
    recipe = Recipe(scheme="base", method="baseline", skip=(), format="none")
    if not base:
        recipe = Recipe(scheme=scheme, method="rtn", group_size=64)  # type: ignore[arg-type]
    layer = LedgerRow(
        "model.layers.0.mlp.up_proj", 344, 128, scheme, scheme, "rtn", "rtn", 64, 0.011, 0.0, 0, 0, 44_032
    )
    fallen = replace(
        layer,
        layer="model.layers.0.mlp.down_proj",
        scheme_used="w8a16",
        weight_error=0.0042,
        reason="344 columns are not a multiple of 64",
    )
    return Variant(
        format_version=1,
        name=name,
        base=BASE,
        recipe=recipe,
        weights_digest=("b" if base else name[:1] + "0") * 8,
        tokenizer_digest=BASE.tokenizer_digest,
        calibration_digest=None,
        layers=() if base else (layer, fallen),
        verification=Verification(12, 12, 2, 0.0, size, size),
        fallbacks=fallbacks,
        bytes=size,
        seconds=0.4,
        peak_memory_bytes=210_000_000,
        qtool_version="0.1.0",
    )


def score(value: float, items: int, *, half: float = 0.01) -> Score:
    """A Score whose interval is `half` wide to each side."""
    return Score("exact", value, Interval(max(value - half, 0.0), min(value + half, 1.0)), items)


def evaluation(
    name: str, task: str, value: float, *, base: float = 0.97, items: int = 1000, half: float = 0.004
) -> Evaluation:
    """An evaluation whose verdict follows from difference, `half` width and the margin of one point."""
    difference = value - base
    interval = Interval(difference - half, difference + half, 0.9)  # two one-sided 95 % bounds, as of the ship test
    verdict: VerdictName = "PASS" if interval.low > -MARGIN else "FAIL" if interval.high < -MARGIN else "UNDECIDED"
    need = 4200 if verdict == "UNDECIDED" else None
    compared = Comparison(
        "baseline", difference, interval, MARGIN, verdict, f"lower end {interval.low:+.3f}", 0.2, need
    )
    baseline = name == "baseline"
    part = SliceScore("operation", "add", score(value, items // 4), score(base, items // 4), interval, verdict)
    return Evaluation(
        format_version=1,
        variant=name,
        variant_digest="d" * 64,
        task=task,
        task_version=1,
        task_digest="e" * 64,
        items_digest="f" * 64,
        score=score(value, items),
        comparison=None if baseline else compared,
        churn=None if baseline else Churn(items, 9, 4, 3, 2, items),
        slices=(replace(part, baseline=None, difference=None, verdict=None) if baseline else part,),
        faults=AnswerFaults(0, 1, 0, 2),
        timing=TaskTiming(8.2, 11.0, 12.0, 14_000, 1166.0),
        engine="qtool",
        seed=0,
        qtool_version="0.1.0",
    )


def quantiles(middle_ms: float, samples: int) -> tuple[Quantile, ...]:
    """p50, p95 and a refused p99."""
    return (
        Quantile(0.5, middle_ms, Interval(middle_ms * 0.96, middle_ms * 1.05), samples, 6),
        Quantile(0.95, middle_ms * 1.3, Interval(middle_ms * 1.2, middle_ms * 1.6), samples, 59),
        Quantile(0.99, None, None, samples, 299),
    )


def latency(name: str, middle_ms: float, *, size: int = 900_000) -> LatencyProfile:
    """A profile with two load levels."""
    machine = MachineState("2-core machine", "cpu", 1, "2.13.0", 0.2, 0.9)
    levels = tuple(
        LoadLevel(
            concurrency=concurrency,
            requests=64,
            prompt_tokens=64,
            output_tokens=32,
            ttft=quantiles(middle_ms * 0.2 * concurrency**0.5, 64),
            tpot=quantiles(middle_ms * 0.025, 64),
            itl=quantiles(middle_ms * 0.025, 1984),
            e2e=quantiles(middle_ms * concurrency**0.6, 64),
            output_tokens_per_second=32_000 / middle_ms * concurrency**0.4,
            requests_per_second=1000 / middle_ms,
        )
        for concurrency in (1, 8)
    )
    return LatencyProfile(
        1, name, "d" * 64, machine, levels, 0.31, 0.36, 240_000_000, size, (("linear", "torch"),), False, "0.1.0"
    )


def calibration() -> Calibration:
    """A small calibration record."""
    source = SourceCount("arithmetic", 100, 80, 1, 2, 17, 0)
    span = LayerRange("model.layers.0.mlp.up_proj", "absmax", -3.2, 4.1, 0.0, 100_000, 800, 0)
    return Calibration(
        1, BASE, "mixed", "a" * 64, 0, 256, 128, 32_768, True, (source,), ("absmax",), (span,), "0.1.0", 3.2
    )


VARIANTS = {
    "baseline": ("base", 1_800_000, 0.97, 12.0),
    "w8a16": ("w8a16", 960_000, 0.969, 10.9),
    "w4a16-g64": ("w4a16", 560_000, 0.962, 9.1),
    "w4a16": ("w4a16", 520_000, 0.871, 8.9),
    "w8a8": ("w8a8", 950_000, 0.968, 13.4),
}


def write_run(run: Path, *, names: tuple[str, ...] = tuple(VARIANTS), plan: Plan = PLAN) -> Path:
    """A complete run folder with the variants `names`; weights and tokenizer are left out."""
    write_record(run / "plan.json", plan)
    for name in names:
        scheme, size, value, middle_ms = VARIANTS[name]
        write_record(run / "variants" / name / "variant.json", variant(name, scheme, size=size))
        write_record(run / "evaluations" / name / "arithmetic.json", evaluation(name, "arithmetic", value))
        write_record(run / "evaluations" / name / "facts.json", evaluation(name, "facts", 0.97))
        write_record(run / "latency" / f"{name}.json", latency(name, middle_ms, size=size))
    write_record(run / "calibration" / "calibration.json", calibration())
    return run


def certified(base: Calibration, *, verdict: CalibrationVerdict = "more_samples") -> Calibration:
    """`base` with a certificate: two inputs, the second unsettled; the tag `code` is not covered."""
    clips = (HeldOutClip("arithmetic", 1000, 0.0012, 0.0021), HeldOutClip("code", 3000, 0.02, 0.09))
    curve = tuple(CurvePoint(8 << step, 3.6 + 0.1 * step) for step in range(5))
    settled = RangeCertificate("percentile:99.9", 4.0, 3.97, 4.03, 0.99, 0.004, curve, 0.001, clips, True)
    shrunk = tuple(replace(point, high=point.high / 2) for point in curve)
    loose = replace(settled, high=2.0, interval_low=1.5, interval_high=2.5, curve=shrunk, converged=False)
    up, down = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"
    layers = (
        LayerCertificate(up, ("a", "b"), 128, 800, (settled,), 5.0, 31.4, 0, (), "enough", ""),
        LayerCertificate(down, ("c",), 344, 800, (loose,), None, None, 3, (7, 9), verdict, "wide", 640),
    )
    like = TagCertificate(
        "arithmetic", 32, 8, 400, 0.93, 0.001, 0.002, down, "enough", "", -0.004, 0.5, ("arithmetic",)
    )
    missed = replace(
        like, tag="code", sequences=0, score=0.81, verdict="wrong_mix", reason="no row", distance=0.31, p_value=0.001
    )
    tags = (like, missed)
    found = Certificate(
        layers, tags, (ExpertTokens("model.layers.0.mlp", 3, 5, 256),), verdict, "one input is loose", 640
    )
    return replace(base, verdict=verdict, verdict_reason=found.reason, held_out_sequences=24, certificate=found)
