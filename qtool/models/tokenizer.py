"""Text to token ids and back, with exactly the special tokens a model was trained with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtool.errors import DataError, MismatchError, ModelError, StoreError
from qtool.models.checkpoint import read_config, tokenizer_files
from qtool.models.foreign import FOREIGN, reason
from qtool.store.codec import read_json_object

_VOCABULARIES = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of `folder`. Raises ModelError when there is none or it is damaged."""
    from transformers import AutoTokenizer

    read_config(folder)
    if not _VOCABULARIES & set(tokenizer_files(folder)):
        raise ModelError(f"{folder}: has no tokenizer (tokenizer.json); copy the one the model was trained with")
    if _wants_own_code(folder):
        raise ModelError(f"{folder}: tokenizer_config.json asks for code of its own; qtool never runs a model's code")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except FOREIGN as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {reason(error)}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder}: has no fast tokenizer (tokenizer.json); convert it with transformers first")
    return tokenizer


def encode(tokenizer: Any, text: str, *, bos: bool = True) -> tuple[int, ...]:
    """Token ids of `text`, beginning with exactly one BOS if `bos` is set and the tokenizer uses one, else with none
    that the text does not spell out itself; no other special token is added."""
    if (place := surrogate_in(text)) is not None:
        raise DataError(f"a text holds half a surrogate pair (character {place + 1}); no tokenizer takes it; remove it")
    ids = list(tokenizer.encode(text, add_special_tokens=False, verbose=False))
    if not bos or not uses_bos(tokenizer):
        return tuple(ids)
    start = tokenizer.bos_token_id
    while ids[:1] == [start]:  # a rendered chat template may already begin with it
        ids.pop(0)
    return (start, *ids)


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer of `folder` has a chat template to ask through, told from its files alone."""
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return False
    try:
        template = read_json_object(path).get("chat_template")
    except StoreError as error:
        raise ModelError(str(error)) from error
    if isinstance(template, list):  # several by name: the one called default is used
        return any(isinstance(entry, dict) and entry.get("name") == "default" for entry in template)
    return bool(template)


def uses_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a text with its BOS token."""
    start = tokenizer.bos_token_id
    return start is not None and list(tokenizer.encode("a"))[:1] == [start]


def wants_bos(tokenizer: Any) -> bool:
    """Whether the model itself shows that its texts begin with BOS: its chat template writes one, before the first turn
    and before no other, or the configuration it was trained with asks for one."""
    start = tokenizer.bos_token
    if start is None:
        return False
    if tokenizer.init_kwargs.get("add_bos_token") is True:
        return True
    if not tokenizer.chat_template:
        return False
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    try:
        text = render_chat(tokenizer, turns)
    except ModelError:
        return False  # a template that refuses plain turns shows nothing
    return text.startswith(start) and text.count(start) == 1  # one before each turn is a mark of turns


def stop_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a generation, sorted: the tokenizer's EOS and those of the two configs of `folder`."""
    from qtool.models.skeleton import vocabulary_of

    found = {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        if not (folder / name).is_file():
            continue
        try:
            declared = read_json_object(folder / name).get("eos_token_id")
        except StoreError as error:
            raise ModelError(str(error)) from error
        ids = declared if isinstance(declared, list) else [declared]
        for token in ids:
            _check_stop(folder / name, token, vocabulary_of(folder))
        found.update(ids)
    return tuple(sorted(int(token) for token in found if isinstance(token, int)))


def _check_stop(path: Path, token: object, vocabulary: int) -> None:
    if token is None:
        return
    if not isinstance(token, int) or isinstance(token, bool):
        raise ModelError(f"{path}: eos_token_id holds {token!r}, which is no token id; give a whole number")
    if not 0 <= token < vocabulary:
        last = vocabulary - 1
        raise ModelError(f"{path}: eos_token_id {token} is no token of the model, whose ids go from 0 to {last}")


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
    """The text the chat template makes of `messages`. Raises ModelError when there is no template or it refuses."""
    from qtool.models.chat_template import render

    if not tokenizer.chat_template:
        raise ModelError("the tokenizer has no chat template; send plain prompts, or use a model that has one")
    return render(tokenizer, messages, add_generation_prompt=add_generation_prompt)


def refuse_beyond(ids: Sequence[int], vocabulary: int, subject: str) -> None:
    """Raises MismatchError where `subject` has a token for which the model's embedding has no row."""
    if max(ids, default=0) >= vocabulary:
        raise MismatchError(
            f"{subject}: the tokenizer makes token id {max(ids)}, but the model's embedding has {vocabulary} rows; "
            "the tokenizer belongs to another model"
        )


def surrogate_in(text: str) -> int | None:
    """Where `text` first has half of a surrogate pair, which is no character: UTF-8 and tokenizers refuse it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _wants_own_code(folder: Path) -> bool:
    if not (folder / "tokenizer_config.json").is_file():
        return False
    try:
        return "auto_map" in read_json_object(folder / "tokenizer_config.json")
    except StoreError as error:
        raise ModelError(str(error)) from error
