"""Every limit is kept somewhere: a limit that nothing reads is a promise that nothing holds."""

import ast
import dataclasses
from pathlib import Path

import pytest
from live_server import Running

from qtool.serve import limits
from qtool.serve.limits import Limits

SERVE = Path(limits.__file__).parent


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_every_limit_is_read_where_it_is_kept(name: str) -> None:
    reads = [
        f"{path.name}:{node.lineno}"
        for path in SERVE.glob("*.py")
        if path.name != "limits.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == name and "limits" in ast.unparse(node.value)
    ]
    assert reads, f"{name} is read nowhere"


def test_too_many_messages_are_refused_and_one_less_is_not_refused_for_that(served: Running) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant")] * 128 + [{"role": "user", "content": ""}]
    refused = served.chat(messages=turns)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "257 messages in one request; at most 256"
    assert "in one request" not in served.chat(messages=turns[:256]).text
    served.wait_idle()
