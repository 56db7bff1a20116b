"""Output held to a form: JSON of a schema, a regular expression, a grammar; others in the batch are left alone."""

import json
import re

import pytest

from qtool.engine.contract import Engine, GenerationRequest, Sampling
from qtool.engine.drive import generate
from qtool.errors import RequestError

pytest.importorskip("llguidance")

from qtool.engine.grammar import Grammars, from_lark, from_regex, from_schema
from qtool.models.locate import locate
from qtool.models.tokenizer import encode, load_tokenizer, stop_ids

MODEL = locate("reference-64")
TOKENIZER = load_tokenizer(MODEL)
STOPS = stop_ids(MODEL, TOKENIZER)
PROMPT = encode(TOKENIZER, "What is 12 + 30?")


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The smallest reference model."""
    from qtool.engine.load import open_engine

    return open_engine(MODEL, dtype="float32", slots=8, context_tokens=256)


def texts(engine: Engine, grammar: str, *, count: int = 4, tokens: int = 150) -> list[str]:
    """Sampled answers under `grammar` that ended by themselves."""
    requests = [
        GenerationRequest(PROMPT, tokens, Sampling(1.0, seed=seed), stop_ids=STOPS, grammar=grammar)
        for seed in range(count)
    ]
    found = generate(engine, requests)
    assert all(answer.finish == "stop" for answer in found)
    return [TOKENIZER.decode(answer.ids, skip_special_tokens=True) for answer in found]


def test_json_of_a_schema(engine: Engine):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    for text in texts(engine, from_schema(schema)):
        found = json.loads(text)
        assert set(found) == {"name", "age"}
        assert isinstance(found["age"], int)


def test_a_regular_expression_and_a_grammar(engine: Engine):
    assert all(
        re.fullmatch(r"(yes|no), [a-z]{3,8}", text) for text in texts(engine, from_regex("(yes|no), [a-z]{3,8}"))
    )
    assert set(texts(engine, from_lark('start: "red" | "green"'))) <= {"red", "green"}


def test_greedy_neighbours_are_what_they_are_alone(engine: Engine):
    free = GenerationRequest(PROMPT, 12, stop_ids=STOPS)
    (alone,) = generate(engine, [free])
    held = GenerationRequest(PROMPT, 12, stop_ids=STOPS, grammar=from_regex("[xyz]{6}"))
    together, form = generate(engine, [free, held])
    assert together.ids == alone.ids
    assert re.fullmatch("[xyz]{6}", TOKENIZER.decode(form.ids))


@pytest.mark.parametrize(
    "make",
    [
        lambda: from_schema({"type": 5}),
        lambda: from_schema({"$ref": "http://example.com/x"}),
        lambda: from_schema({"type": "string", "pattern": "("}),
        lambda: from_regex("("),
        lambda: from_lark("start: missing"),
        lambda: from_regex("a" * 300_000),
    ],
)
def test_what_is_no_form_is_one_refused_request(engine: Engine, make: object):
    grammars = Grammars(TOKENIZER, engine.status().vocabulary, STOPS)
    with pytest.raises(RequestError) as caught:
        grammars.check(make())  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert texts(engine, from_regex("ok"), count=1) == ["ok"]
