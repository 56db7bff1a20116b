"""From rows to token sequences: packing, cutting, mixing, holding out, counting; and what lint sees in them."""

import json
from pathlib import Path

import pytest
from tiny_model import make_tokenizer

from qtool.data.lint import lint, lint_text
from qtool.data.overlap import TaskIndex
from qtool.data.sequences import draw_sequences, shares
from qtool.data.sets import SetSpec, SourceSpec, load_set
from qtool.errors import DataError, PlanError


def jsonl(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def one(source: SourceSpec) -> SetSpec:
    return SetSpec("test", "d", "none", 1, (source,))


def texts(count: int, length: int = 20) -> list[dict[str, object]]:
    return [{"text": f"{number:05d} " + "x" * (length - 6)} for number in range(count)]


def test_packed_rows_fill_sequences_and_keep_their_bos(tmp_path: Path) -> None:
    source = SourceSpec("a", data=jsonl(tmp_path / "a.jsonl", texts(100)))
    drawn = draw_sequences(one(source), make_tokenizer(), sequences=8, tokens=50, seed=0)
    kept = [sequence for sequence in drawn.sequences if not sequence.held_out]
    assert [len(sequence.tokens) for sequence in kept] == [50] * 8
    assert len(drawn.sequences) == 10
    # 21 tokens a row, its BOS among them: each sequence of 50 holds two or three
    assert {sequence.tokens.count(0) for sequence in drawn.sequences} <= {2, 3}


def test_unpacked_rows_are_one_sequence_each(tmp_path: Path) -> None:
    rows = [*texts(40), {"text": "tiny"}, {"text": " "}, {"text": "z" * 300}, *texts(2)]
    source = SourceSpec("a", data=jsonl(tmp_path / "a.jsonl", rows), packed=False)
    drawn = draw_sequences(one(source), make_tokenizer(), sequences=200, tokens=50, seed=0)
    (count,) = drawn.sources
    assert (count.read, count.used, count.dropped_empty, count.dropped_short) == (45, 41, 1, 1)
    assert (count.dropped_duplicate, count.cut_to_length) == (2, 1)
    assert sum(sequence.held_out for sequence in drawn.sequences) == 41 // 5
    assert max(len(sequence.tokens) for sequence in drawn.sequences) == 50
    assert len({tuple(sequence.tokens) for sequence in drawn.sequences}) == 41


def test_held_out_rows_are_never_calibration_rows(tmp_path: Path) -> None:
    source = SourceSpec("a", data=jsonl(tmp_path / "a.jsonl", texts(300)), packed=False)
    drawn = draw_sequences(one(source), make_tokenizer(), sequences=100, tokens=50, seed=0)
    parts = {
        held_out: {tuple(s.tokens) for s in drawn.sequences if s.held_out == held_out} for held_out in (False, True)
    }
    assert (len(parts[False]), len(parts[True])) == (100, 25)
    assert not parts[False] & parts[True]


def test_shares_follow_the_weights() -> None:
    sources = [SourceSpec(tag, weight, generator="code") for tag, weight in (("a", 3.0), ("b", 1.0), ("c", 0.0))]
    assert shares(sources, 8) == (6, 2, 0)
    assert shares(sources, 1) == (1, 1, 0)
    assert sum(shares(sources, 101)) == 101


def test_generated_sources_give_the_calibration_split_and_the_seed_decides() -> None:
    spec = load_set("arithmetic")
    first = draw_sequences(spec, make_tokenizer(), sequences=16, tokens=200, seed=0)
    assert first == draw_sequences(spec, make_tokenizer(), sequences=16, tokens=200, seed=0)
    assert first.digest != draw_sequences(spec, make_tokenizer(), sequences=16, tokens=200, seed=1).digest
    assert {count.tag: count.used for count in first.sources} == {"arithmetic": 10, "finance": 5, "reasoning": 5}


def test_chat_turns_go_through_the_models_template(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "good day"}]
    source = SourceSpec("chat", data=jsonl(tmp_path / "c.jsonl", [{"messages": turns}]), packed=False)
    tokenizer = make_tokenizer()
    drawn = draw_sequences(one(source), tokenizer, sequences=1, tokens=100, seed=0)
    assert tokenizer.decode(drawn.sequences[0].tokens) == "<s><user>hello there\n<assistant>good day\n"
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(DataError, match=r"c\.jsonl:1: the chat template refuses these messages: no system role"):
        draw_sequences(one(source), tokenizer, sequences=1, tokens=100, seed=0)
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"c\.jsonl:1: the tokenizer has no chat template"):
        draw_sequences(one(source), tokenizer, sequences=1, tokens=100, seed=0)


def test_questions_are_turns_where_the_model_has_a_template() -> None:
    source = SourceSpec("a", generator="code", text="Q: {question} A:{answer}", user="{question}", assistant="{answer}")
    tokenizer = make_tokenizer()

    def first(chat: bool | None) -> tuple[str, bool]:
        drawn = draw_sequences(one(source), tokenizer, sequences=1, tokens=200, seed=0, chat=chat)
        return tokenizer.decode(drawn.sequences[0].tokens), drawn.chat

    text, as_chat = first(None)
    assert as_chat
    assert text.startswith("<s><user>Write")
    assert "\n<assistant>def " in text
    assert first(True) == (text, True)
    plain, as_chat = first(False)
    assert not as_chat
    assert plain.startswith("<s>Q: Write")
    assert " A: def " in plain
    tokenizer.chat_template = None
    assert first(None) == (plain, False)
    with pytest.raises(PlanError, match="one of user and assistant; give both turns"):
        SourceSpec("a", generator="code", user="{question}")


def test_a_missing_field_names_those_there_are(tmp_path: Path) -> None:
    source = SourceSpec("a", data=jsonl(tmp_path / "a.jsonl", [{"body": "b", "title": "t"}]), text="{title} {abstract}")
    with pytest.raises(DataError, match=r"a\.jsonl:1: has no field 'abstract'; its fields are body, title"):
        draw_sequences(one(source), make_tokenizer(), sequences=1, tokens=100, seed=0)


def test_lint_reports_every_problem_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    question = "A farmer has 17 sheep and buys 25 more at the market on Monday"
    rows = [
        '{"text": "a perfectly good row of text"}',
        '{"text": "<s>a row that spells out its beginning"}',
        '{"text": broken',
        '{"text": "short"}',
        '{"text": ""}',
        '{"text": "a perfectly good row of text"}',
        json.dumps({"text": f"Some words before. {question}, and some after."}),
        json.dumps({"text": "y" * 400}),
        '{"body": "no text"}',
    ]
    path.write_text("\n".join(rows) + "\n")
    index = TaskIndex()
    index.add("farm", question)
    index.add("other", "an item that nobody has copied into the set at all")
    spec = one(SourceSpec("a", data=str(path), packed=False))
    found = lint(spec, make_tokenizer(), context_tokens=256, tasks=index)
    by_kind = {finding.kind: finding for finding in found.findings if finding.kind != "unreadable"}
    lines = {kind: [row.rpartition(":")[2] for row in finding.rows] for kind, finding in by_kind.items()}
    assert lines == {
        "doubled_bos": ["2"],
        "short": ["4"],
        "empty": ["5"],
        "duplicate": ["6"],
        "contaminated": ["7"],
        "over_context": ["8"],
    }
    unreadable = [row for finding in found.findings if finding.kind == "unreadable" for row in finding.rows]
    assert [row.split(": ")[0].rpartition(":")[2] for row in unreadable] == ["3", "9"]
    assert by_kind["contaminated"].advice.endswith("task farm")
    assert found.errors == 3
    text = lint_text(found)
    assert "error: 1 rows repeat items of an evaluation task" in text
    assert "a: 8 rows" in text


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        (None, False),
        ("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", True),
        ("{% for m in messages %}{{ bos_token }}{{ m.role }} {{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", False),
    ],
)
def test_bos_is_missed_only_where_the_model_itself_shows_that_it_wants_one(
    tmp_path: Path, template: str | None, missing: bool
) -> None:
    tokenizer = make_tokenizer(bos=False)
    tokenizer.chat_template = template
    plain = one(SourceSpec("a", data=jsonl(tmp_path / "a.jsonl", texts(30))))
    found = lint(plain, tokenizer, context_tokens=None, tasks=TaskIndex())
    assert [(finding.kind, finding.count) for finding in found.findings] == ([("missing_bos", 30)] if missing else [])
    assert lint_text(found).count("begin without BOS") == missing
    if missing:
        assert lint_text(found).endswith("a: all 30 rows"), "one trait of all rows is no list of rows"


def test_a_problem_of_several_sources_is_said_once_with_its_count(tmp_path: Path) -> None:
    rows = [{"text": "short"}, {"text": "a perfectly good row of text"}, {"text": ""}]
    sources = tuple(SourceSpec(tag, data=jsonl(tmp_path / f"{tag}.jsonl", rows)) for tag in ("a", "b"))
    text = lint_text(lint(SetSpec("s", "d", "l", 1, sources), make_tokenizer(), context_tokens=None, tasks=TaskIndex()))
    assert text.count("hold no text") == 1
    assert "warning: 2 rows hold no text" in text


def test_lint_sees_missing_template_and_refused_roles(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "x"}]
    chat = one(SourceSpec("c", data=jsonl(tmp_path / "c.jsonl", [{"messages": turns}]), messages="messages"))
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    found = lint(chat, tokenizer, context_tokens=None, tasks=TaskIndex())
    assert [finding.kind for finding in found.findings] == ["template_refused"]
    tokenizer.chat_template = None
    found = lint(chat, tokenizer, context_tokens=None, tasks=TaskIndex())
    assert [finding.kind for finding in found.findings] == ["missing_template"]


def test_a_template_alone_is_no_contamination() -> None:
    index = TaskIndex()
    index.add("finance", "$3900 earns 9% simple interest a year. How much interest is paid in 3 years?")
    assert (
        index.repeated("Question: $3900 earns 9% simple interest a year. How much interest is paid in 3 years?")
        == "finance"
    )
    assert (
        index.repeated("Question: $2500 earns 9% simple interest a year. How much interest is paid in 3 years?") is None
    )


def test_lint_finds_tokens_the_embedding_has_no_row_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a short line of plain text"}\n')
    sources = (SourceSpec(tag="a", data=str(tmp_path / "a.jsonl")),)
    spec = SetSpec("s", "d", "l", 1, sources)
    assert not lint(spec, make_tokenizer(), context_tokens=None, tasks=TaskIndex(), vocabulary=259).errors
    found = lint(spec, make_tokenizer(), context_tokens=None, tasks=TaskIndex(), vocabulary=100)
    assert [finding.kind for finding in found.findings if finding.severity == "error"] == ["beyond_embedding"]
