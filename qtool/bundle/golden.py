"""Golden prompts of a bundle: real prompts of its own evaluations, answered by the engine that will serve them."""

import json
from collections.abc import Iterator
from pathlib import Path

from qtool.engine.contract import Engine, ScoreRequest
from qtool.engine.golden import observe
from qtool.errors import StoreError
from qtool.records.bundle import GoldenPrompt
from qtool.store import layout

_PROMPTS = 8
_NEW_TOKENS = 8
_MOST_TOKENS = 96
_FALLBACK = ("The capital of France is", "12 + 30 =", "Once upon a time", "def add(a, b):")
# what another machine's kernels may differ by, in nats: rounding of the logits in each number type
_FLOOR = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.25}
_NOISE_FACTOR = 10.0


def golden_prompts(run: Path, variant: str, engine: Engine, folder: Path, dtype: str) -> tuple[GoldenPrompt, ...]:
    """Up to eight prompts with the engine's answers and one tolerance: ten times this machine's own noise or more.

    The noise is the difference between generating alone and scoring all prompts in one batch.
    """
    from qtool.models.tokenizer import encode, has_chat_template, load_tokenizer, render_chat

    tokenizer = load_tokenizer(folder)
    status = engine.status()
    longest = min(_MOST_TOKENS, status.context_tokens - _NEW_TOKENS)
    texts = list(_evaluated_prompts(layout.RunFolder(run).evaluations(variant))) or list(_FALLBACK)
    if texts == list(_FALLBACK) and has_chat_template(folder):
        texts = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    ids = [encode(tokenizer, text)[:longest] for text in texts[:_PROMPTS]]
    ids = [prompt for prompt in dict.fromkeys(ids) if prompt]
    seen = [observe(engine, prompt, new_tokens=_NEW_TOKENS, tolerance=0.0) for prompt in ids]
    together = engine.score([ScoreRequest(entry.ids, entry.top_ids[:1]) for entry in seen])
    noise = max(
        (abs(score.logprobs[0] - entry.top_logprobs[0]) for score, entry in zip(together, seen, strict=True)),
        default=0.0,
    )
    tolerance = max(_FLOOR.get(dtype, max(_FLOOR.values())), _NOISE_FACTOR * noise)
    return tuple(
        GoldenPrompt(entry.ids, entry.top_ids, entry.top_logprobs, entry.greedy_ids, tolerance) for entry in seen
    )


def _evaluated_prompts(folder: Path) -> Iterator[str]:
    """The first prompts of each task, tasks in turn."""
    tasks = [_prompts(path) for path in sorted(folder.glob("*.items.jsonl"))]
    for place in range(_PROMPTS):
        for prompts in tasks:
            if place < len(prompts):
                yield prompts[place]


def _prompts(path: Path) -> list[str]:
    found = []
    with path.open(encoding="utf-8") as lines:
        for _, line in zip(range(_PROMPTS), lines, strict=False):
            try:
                found.append(json.loads(line)["prompt"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise StoreError(f"{path}: a line is not an item result; evaluate the task again") from error
    return [prompt for prompt in found if isinstance(prompt, str) and prompt.strip()]
