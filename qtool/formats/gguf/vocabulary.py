"""A fast tokenizer as the keys llama.cpp builds its own tokenizer from."""

import json
from collections.abc import Mapping
from typing import Any

from qtool.errors import ModelError
from qtool.models.tokenizer import uses_bos

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # token types of GGUF
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_SPLITS = {  # how text is cut before merging, and llama.cpp's name for it
    f"{_SHORT}{_WORD}|\\p{{N}}{_TAIL}": "qwen2",
    f"{_SHORT}{_WORD}|\\p{{N}}{{1,3}}{_TAIL}": "llama-bpe",
}
SPACE = "▁"


def write_vocabulary(writer: Any, tokenizer: Any, *, rows: int, pre: str | None = None) -> None:
    """Adds tokens, merges or scores, special ids and chat template; ids beyond the tokenizer's become unused tokens.

    `pre` overrides llama.cpp's name for how text is cut before merging. Raises ModelError for a tokenizer that
    llama.cpp cannot rebuild.
    """
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    byte_level = "ByteLevel" in json.dumps(document.get("pre_tokenizer"))
    if model["type"] != "BPE" or not (byte_level or model.get("byte_fallback")):
        raise ModelError(
            f"the tokenizer is of kind {model['type']}, which qtool does not write as GGUF; "
            "it writes byte-level BPE and BPE with byte fallback"
        )
    if not model["merges"]:
        raise ModelError("the tokenizer merges nothing, which llama.cpp cannot load")
    texts, kinds = _tokens(document, rows, byte_level=byte_level)
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_tokenizer_pre((pre or _pre(document)) if byte_level else "default")
    writer.add_token_list(texts)
    if byte_level:
        writer.add_token_merges([_merge(pair) for pair in model["merges"]])
    else:
        writer.add_token_scores(_scores(model, texts))
        writer.add_add_space_prefix(_space_first(document))
    writer.add_token_types(kinds)
    _special(writer, tokenizer)


def _tokens(document: Mapping[str, Any], rows: int, *, byte_level: bool) -> tuple[list[str], list[int]]:
    """The text and type of each id below `rows`."""
    model = document["model"]
    texts = {index: text for text, index in model["vocab"].items()}
    kinds = {index: _BYTE if _is_byte(text) and not byte_level else _NORMAL for index, text in texts.items()}
    if model.get("unk_token") in model["vocab"]:
        kinds[model["vocab"][model["unk_token"]]] = _UNKNOWN
    for token in document["added_tokens"]:
        texts[token["id"]] = token["content"] if token["special"] else token["content"].replace(SPACE, " ")
        if kinds.get(token["id"]) != _UNKNOWN:
            kinds[token["id"]] = _CONTROL if token["special"] else _USER
    if max(texts) >= rows:
        raise ModelError(f"the tokenizer makes token id {max(texts)}, but the model's embedding has {rows} rows")
    return (
        [texts.get(index, f"[PAD{index}]") for index in range(rows)],
        [kinds.get(index, _UNUSED) for index in range(rows)],
    )


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _pre(document: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way the tokenizer cuts text before merging."""
    pre = document["pre_tokenizer"]
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    shapes = [step["type"] for step in steps]
    last = steps[-1]
    if document.get("normalizer") not in (None, {"type": "NFC"}) or last.get("add_prefix_space"):
        raise ModelError("the tokenizer changes text before cutting it, which llama.cpp does not do; give --pre NAME")
    if shapes == ["ByteLevel"] and last["use_regex"]:
        return "gpt-2"
    if shapes == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and last["use_regex"]:
        return "smollm"
    if shapes == ["Split", "ByteLevel"] and not last["use_regex"]:
        name = _SPLITS.get(steps[0]["pattern"].get("Regex", ""))
        if name == "llama-bpe" and not document["model"].get("ignore_merges"):
            name = "dbrx"  # the same cut, merges always followed
        if name:
            return name
    raise ModelError("the tokenizer cuts text in a way qtool has no llama.cpp name for; give --pre NAME if you know it")


def _merge(pair: Any) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _scores(model: Mapping[str, Any], texts: list[str]) -> list[float]:
    """llama.cpp joins the two pieces whose whole scores highest; the tokenizer, whose merge comes first."""
    first: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        first.setdefault(left + right, rank)
    ranks = {whole: place for place, whole in enumerate(first)}
    return [-float(ranks[text]) if text in ranks else -1e6 for text in texts]


def _space_first(document: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text."""
    stated = json.dumps([document.get("normalizer"), document.get("pre_tokenizer")])
    return '"Prepend"' in stated or '"prepend_scheme": "always"' in stated or '"prepend_scheme": "first"' in stated


def _special(writer: Any, tokenizer: Any) -> None:
    for name in ("bos", "eos", "unk", "pad"):
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(uses_bos(tokenizer))
    writer.add_add_eos_token(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
