"""What a model said to its reader: the completion without its thinking, and without turns it made up afterwards."""

import re

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think|inner_monologue"
_OPEN = re.compile(
    rf"<\s*(?:{_NAMES})\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)\s*<\|message\|>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s*/\s*(?:{_NAMES})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>\s*final\s*<\|message\|>",
    re.IGNORECASE,
)
_HARMONY = re.compile(r"\Aanalysis(.*?)assistantfinal", re.DOTALL)  # gpt-oss's channels without their special tokens
_END = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end|return|user|assistant|end_of_solution)\|>|</s>"
    r"|<end_of_turn>|<eos>|<｜end▁of▁sentence｜>|\[INST\]"
)
_SOLUTION = re.compile(r"<\|begin_of_solution\|>")
_NEXT_TURN = re.compile(
    r"\n[ \t]*(?:\#{1,6}[ \t]*)?(?:\*\*)?(?:Question|Q|User|Human|Instruction)[ \t]*\d{0,3}(?:\*\*)?:", re.IGNORECASE
)


def spoken(completion: str, *, thinking_open: bool = False) -> str | None:
    """The part of `completion` meant for the reader; None where the model never got out of its thinking.

    `thinking_open` says that the prompt itself opened a thinking part.
    """
    text = "<think>" + completion if thinking_open else completion
    text = _HARMONY.sub("", text, count=1)
    unfinished = False
    while True:
        opening, closing = _OPEN.search(text), _CLOSE.search(text)
        if closing is not None and (opening is None or closing.start() < opening.start()):
            text = text[closing.end() :]
        elif opening is not None and closing is not None:
            text = text[: opening.start()] + text[_CLOSE.search(text, opening.end()).end() :]  # type: ignore[union-attr]
        elif opening is not None:
            text, unfinished = text[: opening.start()], True
        else:
            break
    text = _SOLUTION.sub("", text)
    ending = next((found for found in _END.finditer(text) if text[: found.start()].strip()), None)
    text = text[: ending.start()] if ending else _END.sub("", text)
    return None if unfinished and not text.strip() else text


def opens_thinking(prompt: str) -> bool:
    """Whether `prompt`, a rendered chat template, ends in the beginning of a thinking part."""
    tail = prompt.rstrip()[-40:]
    openings = list(_OPEN.finditer(tail))
    return bool(openings) and openings[-1].end() == len(tail)


def own_turn(text: str) -> str:
    """`text` up to where the model goes on with another question of its own making."""
    following = next((found for found in _NEXT_TURN.finditer(text) if text[: found.start()].strip()), None)
    return text[: following.start()] if following else text
