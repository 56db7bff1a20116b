"""A chat template rendered under limits: it came with the model's files, and may loop for ever or fill the memory."""

import contextlib
import functools
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from qtool.errors import ModelError
from qtool.models.foreign import FOREIGN, reason

MOST_SECONDS = 5.0
_MOST_BYTES = 1 << 30  # beside what the process has already
_TEMPLATE_CODE = "<template>"  # what jinja calls the file of the code it makes
_LINES_BETWEEN_LOOKS = 1000
_LARGEST_NUMBER = 100_000


class _TookTooLong(Exception):
    """Ends a template's code."""


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
    """The text that the template of `tokenizer` makes of `messages`. Raises ModelError where it refuses them, fails,
    takes longer than MOST_SECONDS, or asks for more than a gigabyte."""
    from jinja2 import TemplateError

    turns = [_with_one_text(message) for message in messages]
    template = tokenizer.chat_template
    for source in template.values() if isinstance(template, Mapping) else (template,):
        _refuse_large_products(str(source))
    try:
        with _limited_time(MOST_SECONDS), _limited_memory():
            rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise ModelError(f"the chat template refuses these messages: {error}") from error
    except _TookTooLong as error:
        text = f"the chat template runs for more than {MOST_SECONDS:g} s; the model's files are at fault"
        raise ModelError(text) from error
    except (MemoryError, OverflowError) as error:
        raise ModelError("the chat template asks for more than a gigabyte; the model's files are at fault") from error
    except FOREIGN as error:
        raise ModelError(f"the chat template fails on these messages: {reason(error)}") from error
    return str(rendered)


def _with_one_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """`message` with its content as one text: text parts of OpenAI's form joined, which templates print as Python
    spells a list. Raises ModelError for other parts and for content that is no text."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise ModelError("content has parts that are no text; qtool reads text only")
        return {**message, "content": "".join(map(str, parts))}
    if content is not None and not isinstance(content, str):
        raise ModelError(f"content is {type(content).__name__}; give a text")
    return dict(message)


@functools.lru_cache(maxsize=16)
def _refuse_large_products(source: str) -> None:
    """Raises ModelError for numbers that jinja would multiply out while it compiles, before any limit holds."""
    from jinja2 import Environment, TemplateError, nodes

    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)  # parsed, never run
    except TemplateError:
        return  # transformers knows more tags; what it cannot read either, it will say
    products = [found for kind in (nodes.Mul, nodes.Pow) for found in tree.find_all(kind)]
    numbers = [number.value for found in products for number in found.find_all(nodes.Const)]
    if tree.find(nodes.Pow) is not None or any(isinstance(n, int) and n > _LARGEST_NUMBER for n in numbers):
        raise ModelError("the chat template multiplies large numbers; the model's files are at fault")


@contextlib.contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    """Ends the template's own code after `seconds`. It is watched line by line: that needs no second thread, and works
    in any."""
    deadline = time.monotonic() + seconds
    lines = 0

    def watch_lines(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        if lines % _LINES_BETWEEN_LOOKS == 0 and time.monotonic() > deadline:
            raise _TookTooLong
        return watch_lines

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        return watch_lines if frame.f_code.co_filename == _TEMPLATE_CODE else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """At most a gigabyte more of address space for the duration; then Python raises MemoryError instead of filling the
    machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    limit = used + _MOST_BYTES
    if soft != resource.RLIM_INFINITY and soft <= limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
