"""From what a client asked to token ids, with every reason to refuse found before the engine sees it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from qtool.engine.contract import EngineStatus
from qtool.errors import ModelError
from qtool.serve.api.chat_schema import ChatRequest, Message
from qtool.serve.api.refusal import Refused
from qtool.serve.api.schema import CompletionRequest, Sampled
from qtool.serve.text.form import active_tools, grammar
from qtool.serve.text.parts import THINK_OPEN
from qtool.serve.text.vocabulary import Vocabulary

_COMPLETION_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request is for the engine: prompts as token ids, the grammar of the answers; and what marks in the answers
    mean: `tools` may be called, the model `thinks`, the prompt ends inside its reasoning."""

    prompts: tuple[tuple[int, ...], ...]
    grammar: str | None = None
    tools: bool = False
    thinks: bool = False
    thinking: bool = False


def prepare(asked: Sampled, vocabulary: Vocabulary, capacity: EngineStatus) -> Prepared:
    """`asked` as the engine takes it. Raises Refused (400). May take long: run it in a thread."""
    if isinstance(asked, ChatRequest):
        ids = _chat(asked, vocabulary, capacity)
        form = grammar(asked, vocabulary)
        thinking = vocabulary.thinks and vocabulary.decode(ids[-8:]).rstrip().endswith(THINK_OPEN)
        return Prepared((ids,), form, bool(active_tools(asked)), vocabulary.thinks, thinking)
    assert isinstance(asked, CompletionRequest)  # all other endpoints become one of these two
    return Prepared(tuple(_prompt(prompt, vocabulary, capacity) for prompt in asked.prompt))


def new_tokens(asked: Sampled, prompt_tokens: int, capacity: EngineStatus, default_tokens: int) -> int:
    """How many tokens to generate: as asked, else 16 for a completion and `default_tokens` for a chat, as far as fit.

    Raises Refused where prompt and output do not fit the context together.
    """
    room = capacity.context_tokens - prompt_tokens
    asked_tokens, field = asked.max_tokens, "max_tokens"
    if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
        asked_tokens, field = asked.max_completion_tokens, "max_completion_tokens"
    if asked_tokens is None:
        return min(default_tokens if isinstance(asked, ChatRequest) else _COMPLETION_TOKENS, room)
    if asked_tokens > room:
        raise Refused(
            400,
            f"{field}: {asked_tokens} with a prompt of {prompt_tokens} tokens exceeds the context of "
            f"{capacity.context_tokens} tokens; at most {room} fit",
            param=field,
        )
    return asked_tokens


def _prompt(prompt: str | Sequence[int], vocabulary: Vocabulary, capacity: EngineStatus) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return _encoded(prompt, "prompt", vocabulary, capacity)
    return _checked(tuple(prompt), "prompt", vocabulary, capacity)


def _chat(asked: ChatRequest, vocabulary: Vocabulary, capacity: EngineStatus) -> tuple[int, ...]:
    tools = [tool.model_dump(exclude_defaults=True) | {"type": "function"} for tool in active_tools(asked)]
    if tools and not vocabulary.has_tools:
        raise Refused(400, "tools: this model's chat template knows no tools", param="tools")
    return _encoded(chat_text(asked.messages, tools, vocabulary, capacity), "messages", vocabulary, capacity)


def chat_text(
    messages: Sequence[Message], tools: Sequence[dict[str, object]], vocabulary: Vocabulary, capacity: EngineStatus
) -> str:
    """What the chat template makes of `messages`, each of which is in it. Raises Refused (400)."""
    if not vocabulary.has_chat:
        raise Refused(400, "this model has no chat template; use /v1/completions", param="messages")
    if not any(message.content.strip() or message.tool_calls for message in messages):
        raise Refused(400, "messages: none has any text", param="messages")
    for index, message in enumerate(messages):
        spelled = next((text for text in vocabulary.special_texts if text in message.content), None)
        if spelled is not None:
            raise Refused(400, f"messages.{index}: spells the control token {spelled!r}", param="messages")
    check_length(sum(len(message.content) for message in messages), "messages", vocabulary, capacity)
    try:
        text = vocabulary.render_chat([_spoken(message) for message in messages], tools)
    except ModelError as error:  # the template itself refuses, for example two user messages in a row
        raise Refused(400, f"messages: {error}"[:280], param="messages") from error
    for index, message in enumerate(messages):
        if message.role in ("system", "developer", "user") and message.content.strip() not in text:
            raise Refused(400, f"messages.{index}: the model's chat template leaves this message out", param="messages")
    return text


def _spoken(message: Message) -> dict[str, object]:
    """A message as templates know it. A developer is what older templates call the system: few know the new word,
    and those that do not leave the message out."""
    spoken: dict[str, object] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content or message.refusal,
    }
    if message.name:
        spoken["name"] = message.name
    if message.tool_calls:
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]
        spoken["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": _arguments(arguments)}}
            for id_, name, arguments in calls
        ]
    if message.tool_call_id:
        spoken["tool_call_id"] = message.tool_call_id
    if message.reasoning_content:
        spoken["reasoning_content"] = message.reasoning_content
    return spoken


def _arguments(text: str) -> object:
    """Templates write the arguments of a call as JSON themselves: they want the object, not its text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _encoded(text: str, field: str, vocabulary: Vocabulary, capacity: EngineStatus) -> tuple[int, ...]:
    check_length(len(text), field, vocabulary, capacity)
    return _checked(vocabulary.encode(text), field, vocabulary, capacity)


def check_length(characters: int, field: str, vocabulary: Vocabulary, capacity: EngineStatus) -> None:
    """A text that cannot fit however it is cut is refused before the tokenizer, whose time may grow quadratically."""
    most = capacity.context_tokens * vocabulary.longest_token
    if characters > most:
        raise Refused(
            400, f"{field}: {characters:,} characters cannot fit {capacity.context_tokens} tokens", param=field
        )


def _checked(ids: tuple[int, ...], field: str, vocabulary: Vocabulary, capacity: EngineStatus) -> tuple[int, ...]:
    if len(ids) >= capacity.context_tokens:
        raise Refused(
            400,
            f"{field}: {len(ids)} tokens leave no room for an answer in the context of {capacity.context_tokens}",
            param=field,
        )
    highest = max(ids, default=0)
    if highest >= capacity.vocabulary:
        raise Refused(400, f"{field}: token id {highest} is not below {capacity.vocabulary}", param=field)
    if not any(token not in vocabulary.special_ids for token in ids):
        raise Refused(400, f"{field}: holds nothing but control tokens", param=field)
    return ids
