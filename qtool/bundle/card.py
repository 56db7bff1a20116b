"""The model card's head: what the hub reads of a variant, by huggingface_hub's own classes."""

import re
from typing import Any

from qtool.records.report import ReportRow

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def head(row: ReportRow, *, model: str, source: str) -> str:
    """YAML between the card's dashes: base and licence where they are known, every task with its score and n."""
    from huggingface_hub import EvalResult, ModelCardData

    recipe = row.variant.recipe
    known: dict[str, Any] = (
        {"base_model": source, "base_model_relation": "quantized"} if _HUB_ID.fullmatch(source) else {}
    )
    if recipe.scheme == "base":
        known.pop("base_model_relation", None)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"qtool/{each.task}",
            dataset_name=f"{each.task} (n {each.score.items})",
            metric_type=each.score.metric,
            metric_name=each.score.metric,
            metric_value=round(each.score.value, 6),
            verified=False,
        )
        for each in row.evaluations
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        license=row.variant.base.licence,
        tags=["qtool", recipe.scheme, recipe.format],
        model_name=model if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
        **known,
    )
    text: Any = data.to_yaml()
    return str(text)


def commands(row: ReportRow) -> tuple[tuple[str, str], ...]:
    """Programs that load this variant, each with a command or lines of code."""
    recipe = row.variant.recipe
    found = [("qtool", "qtool serve .")]
    if recipe.format in ("compressed-tensors", "gptq", "none"):
        found += [
            ("vLLM", "vllm serve ."),
            ("SGLang", "python -m sglang.launch_server --model-path ."),
        ]
    python = 'AutoModelForCausalLM.from_pretrained(".")'
    found.append(("transformers (Python)", f"from transformers import AutoModelForCausalLM\nmodel = {python}"))
    if recipe.activations == "none" and recipe.format in ("compressed-tensors", "none"):
        found.append(("llama.cpp", "qtool convert . -o model.gguf && llama-server -m model.gguf"))
    return tuple(found)
