"""The Python program that a text gives: from fences of every kind, several blocks, or prose without a fence."""

import ast
import re
import textwrap
import warnings
from collections.abc import Collection
from dataclasses import dataclass

_OPENING = re.compile(r"^([ \t]*)(?:[-*>][ \t]+)?(`{3,}|~{3,})[ \t]*(.*)$")
_PYTHON = re.compile(r"^\{?\s*\.?(?:python\d?|python3\.\d+|py\d?|ipython\d?|pycon|sage)?\b", re.IGNORECASE)
_OTHER = re.compile(
    r"^\{?\s*\.?(?:bash|sh|shell|zsh|console|terminal|cmd|powershell|text|txt|plaintext|output|json|yaml|toml|ini|java|javascript|js|typescript|ts|c|cpp|c\+\+|rust|go|sql|html|css|xml|diff|markdown|md|latex|r|ruby|php)\b",
    re.IGNORECASE,
)
_STARTS = re.compile(
    r"^(?:async\s+def|def|class|import|from|@\w|if __name__|[A-Za-z_]\w*\s*=\s*(?:lambda|[\w(\[{\"']))"
)
_PROMPT = re.compile(r"(?m)^(?:>>>|\.\.\.) ?")
_ALTERNATIVE = re.compile(
    r"\b(?:alternativ\w*|another|or\s+(?:you\s+can|simply)|one-liner|shorter|other\s+way)\b", re.IGNORECASE
)
_INLINE = re.compile(r"`((?:async\s+)?def [^`\n]+)`")


@dataclass(frozen=True, slots=True)
class _Block:
    """A fenced block: its code and the text that stands before it."""

    source: str
    before: str
    other_language: bool


def program(text: str, *, names: Collection[str] = (), prefix: str = "") -> str | None:
    """The code in `text` that defines one of `names`, with the imports and helpers before it; None where there is none.

    `prefix` is what the code may continue: a body without its own `def` is then indented to fit it.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block for block in _blocks(text) if block.source.strip() and not block.other_language]
    fenced = any(_defined(block.source) & set(names) for block in blocks)
    if blocks and (fenced or not _defined_in_lines(text, names)):  # else a lone fence after code that began without one
        return _fitted(_joined(blocks, names), names, prefix)
    if any(_OPENING.match(line) for line in text.split("\n")) and not _bare(text, names, prefix):
        return None
    return _bare(text, names, prefix)


def called(tests: Collection[str], target: str = "") -> frozenset[str]:
    """Names that the code must define: what the tests call, where they do not define it themselves; else what the
    target defines, or is."""
    names: set[str] = set()
    for test in tests:
        tree = _parsed(test)
        if tree is not None:
            own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            names |= {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            } - own
    if target.isidentifier():
        return frozenset({target})
    wanted = _defined(target)
    return frozenset(wanted & names or wanted or names)


def _blocks(text: str) -> list[_Block]:
    """Fenced blocks, one that is never closed included; a fence inside a string of the code does not end it."""
    lines = text.split("\n")
    found, place, last = [], 0, 0
    while place < len(lines):
        opening = _OPENING.match(lines[place])
        if opening is None or "`" in opening.group(3):
            place += 1
            continue
        _, fence, info = opening.groups()
        closings = [
            index for index in range(place + 1, len(lines))
            if re.fullmatch(rf"[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*", lines[index])
        ]  # fmt: skip
        closings = closings or [len(lines)]
        end = closings[0]
        python = not _OTHER.match(info)
        if python and _parsed(_block_source(lines[place + 1 : end])) is None:
            # a fence inside a docstring ends nothing: the code goes on to where it can be read
            end = next((other for other in closings[1:] if _whole(lines[place + 1 : other])), end)
        before = "\n".join(lines[last:place])
        found.append(_Block(_block_source(lines[place + 1 : end]), before, not python))
        place = last = end + 1
    return found


def _whole(lines: list[str]) -> bool:
    inner = [line for line in lines if _OPENING.match(line) and not line.strip().strip("`~")]
    return len(inner) % 2 == 0 and _parsed(_block_source(lines)) is not None


def _block_source(lines: list[str]) -> str:
    source = "\n".join(lines).rstrip()
    if _PROMPT.match(source.lstrip()):
        source = "\n".join(_PROMPT.sub("", line) for line in source.split("\n") if _PROMPT.match(line.lstrip()))
    dedented = textwrap.dedent(source)
    return dedented if _STARTS.match(dedented.lstrip("\n")) else source


def _joined(blocks: list[_Block], names: Collection[str]) -> str:
    """The block that defines what is wanted (the last; the first, where later ones are only alternatives), after those
    before it that define or import something else."""
    defining = [index for index, block in enumerate(blocks) if _defined(block.source) & set(names)] if names else []
    if not defining:
        defining = [index for index, block in enumerate(blocks) if _defined(block.source)][:1] or [0]
    chosen = defining[-1]
    while len(defining) > 1 and _ALTERNATIVE.search(blocks[chosen].before):
        defining.pop()
        chosen = defining[-1]
    before = [
        block.source for index, block in enumerate(blocks[:chosen])
        if index not in defining and _only_defines(block.source)
    ]  # fmt: skip
    return "\n\n".join([*before, blocks[chosen].source])


def _only_defines(source: str) -> bool:
    """Whether running `source` does nothing but define and import."""
    tree = _parsed(source)
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return tree is not None and bool(tree.body) and all(isinstance(node, kinds) for node in tree.body)


def _bare(text: str, names: Collection[str], prefix: str) -> str | None:
    """Code without a fence, and what of the text around it is prose left out."""
    if not text.strip():
        return None
    body = _unfenced(text)
    body = _block_source(body.split("\n")) if _PROMPT.match(body.lstrip()) else body
    if prefix and not _defined_in_lines(body, names):
        return _longest(body, prefix)
    starts = [
        index for index, line in enumerate(body.split("\n")) if _STARTS.match(line if index else line.lstrip(" "))
    ]
    lines = body.split("\n")
    if starts and starts[0] == 0 and lines[0].startswith(" ") and not lines[0].startswith("  "):
        lines[0] = lines[0][1:]  # the blank that separates an answer from "Answer:", which Python would read as indent
    elif starts and starts[0] == 0:
        lines[0] = lines[0].lstrip(" ")
    pieces = [piece for start in starts if (piece := _region(lines, start)) is not None]
    wanted = [(start, piece) for start, piece in pieces if _defined(piece) & set(names)] if names else pieces
    if wanted:
        first = next((start for start, piece in pieces if _only_defines(piece)), wanted[0][0])
        whole = _region(lines, min(first, wanted[0][0]))
        return whole[1] if whole and (not names or _defined(whole[1]) & set(names)) else wanted[0][1]
    if inline := _INLINE.search(text):
        return inline.group(1)
    body = body.rstrip()
    return body[1:] if body.startswith(" ") and not body.startswith("  ") else body


def _unfenced(text: str) -> str:
    """`text` without lines that are only a fence, and a first line that is only the language's name."""
    lines = [line for line in text.split("\n") if not re.fullmatch(r"\s*(?:`{3,}|~{3,})\s*\w*\s*", line)]
    if lines and re.fullmatch(r"\s*python3?\s*", lines[0], re.IGNORECASE):
        lines = lines[1:]
    return "\n".join(lines).strip("\n")


def _region(lines: list[str], start: int) -> tuple[int, str] | None:
    """(start, source) of the longest run of lines from `start` that is Python."""
    for end in range(len(lines), start, -1):
        if not lines[end - 1].strip():
            continue
        source = "\n".join(lines[start:end])
        if _parsed(source) is not None:
            return start, source
    return None


def _longest(body: str, prefix: str) -> str:
    """The longest beginning of `body` that goes on with `prefix` as Python; all of it where none does."""
    lines = body.rstrip().split("\n")
    for end in range(len(lines), 0, -1):
        for piece in ("\n".join(lines[:end]), textwrap.indent("\n".join(lines[:end]), "    ")):
            if lines[end - 1].strip() and _parsed(prefix + piece) is not None and _has_body(prefix, piece):
                return piece
    return body.rstrip()


def _has_body(prefix: str, piece: str) -> bool:
    """Whether `piece` begins inside of the function that `prefix` opened."""
    first = next((line for line in piece.split("\n") if line.strip()), "")
    return first.startswith((" ", "\t")) or not prefix.endswith("\n") or _parsed(prefix) is None


def _fitted(source: str, names: Collection[str], prefix: str) -> str:
    """A block that is only the body of `prefix`, indented as a body."""
    if not prefix or _defined(source) & set(names) or _defined_in_lines(source, names):
        return source
    return _longest(source, prefix)


def _defined_in_lines(source: str, names: Collection[str]) -> bool:
    return any(re.search(rf"(?m)^(?:async\s+def|def|class)\s+{re.escape(name)}\b", source) for name in names)


def _defined(source: str) -> set[str]:
    """Names that `source` binds at its top level; those that its lines show, where it cannot be parsed."""
    tree = _parsed(source)
    if tree is None:
        return set(re.findall(r"(?m)^(?:async\s+def|def|class)\s+(\w+)", source))
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in what a model wrote are not our warnings
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
