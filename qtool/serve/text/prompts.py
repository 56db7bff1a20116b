"""From what a client asked to token ids, with every reason to refuse found before the engine sees it."""

from collections.abc import Sequence

from qtool.engine.contract import EngineStatus
from qtool.errors import ModelError
from qtool.serve.api.chat_schema import ChatRequest, Message
from qtool.serve.api.refusal import Refused
from qtool.serve.api.schema import CompletionRequest, Sampled
from qtool.serve.text.vocabulary import Vocabulary

_COMPLETION_TOKENS = 16


def prompts(asked: Sampled, vocabulary: Vocabulary, capacity: EngineStatus) -> list[tuple[int, ...]]:
    """Token ids of every prompt of `asked`. Raises Refused (400). May take long: run it in a thread."""
    if isinstance(asked, ChatRequest):
        return [_chat(asked, vocabulary, capacity)]
    assert isinstance(asked, CompletionRequest)  # there are two endpoints
    return [_prompt(prompt, vocabulary, capacity) for prompt in asked.prompt]


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
    messages = asked.messages
    if not vocabulary.has_chat:
        raise Refused(400, "this model has no chat template; use /v1/completions", param="messages")
    if not any(message.content.strip() for message in messages):
        raise Refused(400, "messages: none has any text", param="messages")
    for index, message in enumerate(messages):
        spelled = next((text for text in vocabulary.special_texts if text in message.content), None)
        if spelled is not None:
            raise Refused(400, f"messages.{index}: spells the control token {spelled!r}", param="messages")
    if asked.response_format is not None and asked.response_format.type != "text":
        raise Refused(400, "response_format: this model cannot constrain its output", param="response_format")
    if asked.tools and asked.tool_choice != "none":
        raise Refused(400, "tools: this model's chat template knows no tools", param="tools")
    _check_length(sum(len(message.content) for message in messages), "messages", vocabulary, capacity)
    try:
        text = vocabulary.render_chat([_spoken(message) for message in messages])
    except ModelError as error:  # the template itself refuses, for example two user messages in a row
        raise Refused(400, f"messages: {error}"[:280], param="messages") from error
    for index, message in enumerate(messages):
        if message.role in ("system", "developer", "user") and message.content.strip() not in text:
            raise Refused(400, f"messages.{index}: the model's chat template leaves this message out", param="messages")
    return _encoded(text, "messages", vocabulary, capacity)


def _spoken(message: Message) -> dict[str, object]:
    """A message as templates know it. A developer is what older templates call the system: few know the new word,
    and those that do not leave the message out."""
    spoken: dict[str, object] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content or message.refusal,
    }
    return {**spoken, "name": message.name} if message.name else spoken


def _encoded(text: str, field: str, vocabulary: Vocabulary, capacity: EngineStatus) -> tuple[int, ...]:
    _check_length(len(text), field, vocabulary, capacity)
    return _checked(vocabulary.encode(text), field, vocabulary, capacity)


def _check_length(characters: int, field: str, vocabulary: Vocabulary, capacity: EngineStatus) -> None:
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
