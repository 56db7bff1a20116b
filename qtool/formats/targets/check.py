"""The table of rules held against the layers of one checkpoint."""

from collections.abc import Iterable
from pathlib import Path

from qtool.errors import UnknownName
from qtool.formats.targets.gpus import Capability, capability
from qtool.formats.targets.layers import PLAIN, StoredLayer, StoredModel, stored_model
from qtool.formats.targets.rules import RULES, TARGETS, Rule, Where
from qtool.models.architecture import fused_group
from qtool.records.target_lint import TargetFinding, TargetLint

_ORDER = ("will not load", "misread", "slow", "needs")
_HEADS = ("lm_head", "output", "embed_out")


def lint_for_target(place: Path, target: str, gpu: str | None) -> TargetLint:
    """All that the rules of `target` find in the checkpoint at `place`, worst first; rules on GPUs are held against
    `gpu` and skipped without one. Raises UnknownName, and ModelError where there is no checkpoint."""
    if target not in TARGETS:
        raise UnknownName("target", target, TARGETS)
    card = None if gpu is None else capability(gpu)
    model = stored_model(place)
    rules = [rule for rule in RULES if rule.target == target and rule.where.speaks_of(model.format)]
    checked = [rule for rule in rules if card is not None or not rule.where.asks_gpu]
    findings = [finding for rule in checked if (finding := _held(rule, model, card)) is not None]
    return TargetLint(
        checkpoint=place.name or str(place),
        format=model.format,
        quantized_layers=len(model.quantized),
        target=target,
        gpu=gpu or "",
        compute_capability="" if card is None else f"{card[0]}.{card[1]}",
        rules_checked=len(checked),
        rules_without_gpu=len(rules) - len(checked),
        versions=tuple(dict.fromkeys(rule.version for rule in checked)),
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.consequence))),
    )


def _held(rule: Rule, model: StoredModel, card: Capability | None) -> TargetFinding | None:
    where = rule.where
    if not _is_meant(where, model) or not _is_gpu(where, card):
        return None
    layers = () if where.whole else tuple(layer.name for layer in _objects(where, model))
    if not where.whole and not layers:
        return None
    return TargetFinding(rule.name, rule.consequence, layers, rule.explanation, rule.version, rule.source)


def _is_meant(where: Where, model: StoredModel) -> bool:
    """Whether the rule is one for checkpoints of this model type and these settings."""
    if where.model_types and model.model_type not in where.model_types:
        return False
    cache = model.settings.get("kv_cache_scheme") or {}
    if where.cache_unlike_float8 and (not cache or _is_float8_cache(cache)):
        return False
    if where.version_1 and str(model.settings.get("checkpoint_format") or "gptq") != "gptq":
        return False
    return not (
        where.stored_dequantize is not None and bool(model.settings.get("dequantize")) != where.stored_dequantize
    )


def _is_float8_cache(cache: dict[str, object]) -> bool:
    is_float8 = cache.get("type") == "float" and cache.get("num_bits") == 8
    return is_float8 and cache.get("strategy") == "tensor" and bool(cache.get("symmetric", True))


def _is_gpu(where: Where, card: Capability | None) -> bool:
    if card is None:
        return not where.asks_gpu
    return (where.below is None or card < where.below) and (where.at_least is None or card >= where.at_least)


def _objects(where: Where, model: StoredModel) -> Iterable[StoredLayer]:
    """The layers that meet every condition of the rule."""
    meant = [layer for layer in model.quantized if _has(where, layer)]
    if where.fused_skipped or where.fused_unlike:
        return _merged(where, model.layers)
    if where.experts_unlike:
        experts = [layer for layer in model.layers if ".experts." in layer.name]
        alike = len({layer.scheme for layer in experts}) == 1 and all(layer.symmetric for layer in experts)
        return [] if alike or not any(layer in model.quantized for layer in experts) else experts
    return meant


def _has(where: Where, layer: StoredLayer) -> bool:
    leaf = layer.name.rpartition(".")[2]
    return all(
        (
            not where.numbers or layer.numbers in where.numbers,
            where.symmetric is None or layer.symmetric == where.symmetric,
            where.rounds_inputs is None or (layer.activations != "none") == where.rounds_inputs,
            not where.bits_other_than or layer.bits not in where.bits_other_than,
            not where.groups_other_than or layer.group_size not in where.groups_other_than,
            not where.not_multiples_of or _is_odd(layer, where.not_multiples_of),
            not where.partial_group or (layer.group_size > 0 and layer.columns % layer.group_size != 0),
            not where.head or leaf in _HEADS,
            not where.expert or ".experts." in layer.name,
            not where.leaves or leaf in where.leaves,
        )
    )


def _is_odd(layer: StoredLayer, multiples: tuple[int, int]) -> bool:
    return bool(layer.rows % multiples[0] or layer.columns % multiples[1])


def _merged(where: Where, layers: tuple[StoredLayer, ...]) -> list[StoredLayer]:
    """Layers of every matrix that a server merges whose parts are not all quantized, or not by one scheme."""
    by_name = {layer.name: layer for layer in layers}
    found = []
    for layer in layers:
        group = fused_group(layer.name, by_name)
        schemes = {by_name[name].scheme for name in group}
        some_plain = any(by_name[name].numbers == PLAIN for name in group)
        if len(schemes) > 1 and some_plain == where.fused_skipped:
            found.append(layer)
    return found
