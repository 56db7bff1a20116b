"""One BOS, the right stop tokens, chat templates; devices and number types."""

import json
from pathlib import Path

import pytest
import torch
from tiny_model import make_tokenizer

from qtool.errors import CapacityError, DataError, MismatchError, ModelError, UsageError
from qtool.machine import device as device_of_models
from qtool.machine.device import choose_device, choose_dtype, hardware
from qtool.models.tokenizer import encode, load_tokenizer, refuse_beyond, render_chat, stop_ids


def test_exactly_one_bos(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    plain = encode(tokenizer, "1+1")
    assert plain[0] == tokenizer.bos_token_id
    assert plain.count(tokenizer.bos_token_id) == 1
    assert encode(tokenizer, "<s>1+1") == plain
    assert encode(tokenizer, "<s><s>1+1") == plain
    assert encode(tokenizer, "1+1", bos=False) == plain[1:]
    assert encode(tokenizer, "") == (tokenizer.bos_token_id,)


def test_no_bos_where_the_tokenizer_uses_none() -> None:
    tokenizer = make_tokenizer(bos=False)
    assert encode(tokenizer, "1+1") == encode(tokenizer, "1+1", bos=False)


def test_text_survives_the_round_trip(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    text = "Grüße, 12.50 € 🙂\n"
    assert tokenizer.decode(encode(tokenizer, text, bos=False)) == text


def test_stop_ids_join_every_source(llama: Path) -> None:
    (llama / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert stop_ids(llama, load_tokenizer(llama)) == (1, 7, 9)


def test_chat_template_is_applied(llama: Path) -> None:
    rendered = render_chat(load_tokenizer(llama), [{"role": "user", "content": "hi"}])
    assert rendered == "<s><user>hi\n<assistant>"
    assert encode(load_tokenizer(llama), rendered).count(0) == 1


def test_absent_chat_template_is_an_answer(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        render_chat(tokenizer, [{"role": "user", "content": "hi"}])


def test_template_that_refuses_is_an_answer(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="roles must alternate"):
        render_chat(tokenizer, [{"role": "user", "content": "hi"}])


def test_model_without_tokenizer(llama: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (llama / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(llama)


def test_damaged_tokenizer(llama: Path) -> None:
    (llama / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        load_tokenizer(llama)
    assert "\n" not in str(caught.value)


def test_tokenizer_with_code_of_its_own_is_refused(llama: Path) -> None:
    path = llama / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    with pytest.raises(ModelError, match="code of its own"):
        load_tokenizer(llama)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda"}
    with pytest.raises(UsageError, match="unknown device"):
        choose_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_absent_gpu_is_an_answer() -> None:
    with pytest.raises(CapacityError, match="no CUDA device"):
        choose_device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_computed_where_the_processor_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_of_models, "has_bfloat16", lambda: native)
    cpu, config = torch.device("cpu"), {"dtype": "bfloat16"}
    assert choose_dtype("auto", config, cpu) is (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("auto", config, torch.device("cuda")) is torch.bfloat16
    assert choose_dtype("bfloat16", config, cpu) is torch.bfloat16


def test_number_types() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", {"torch_dtype": "float16"}, cpu) is torch.float32
    assert choose_dtype("auto", {"dtype": "float16"}, torch.device("cuda")) is torch.float16
    assert choose_dtype("float16", {}, cpu) is torch.float16
    with pytest.raises(UsageError, match="unknown dtype"):
        choose_dtype("int3", {}, cpu)


def test_hardware_names_cores() -> None:
    assert "cores" in hardware()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ 1 + 'a' }}", "fails on these messages"),
        ("{{ 1/0 }}", "fails on these messages"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ 'a' * 10**10 }}", "multiplies large numbers"),
        ("{% set n = 100000 %}{{ 'a' * (n * n * n) }}", "more than a gigabyte"),
        ("{{ messages[5].x }}", "refuses these messages"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "runs for more than 0.2 s"),
        ({"tools": "x", "plain": "y"}, "multiple chat templates"),
    ],
)
def test_a_template_that_fails_or_never_ends_is_one_line(
    monkeypatch: pytest.MonkeyPatch, template: object, words: str
) -> None:
    from qtool.models import chat_template

    monkeypatch.setattr(chat_template, "MOST_SECONDS", 0.2)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=words) as caught:
        render_chat(tokenizer, [{"role": "user", "content": "hi"}])
    assert "\n" not in str(caught.value)


def test_half_a_surrogate_pair_is_told_and_not_given_to_the_tokenizer() -> None:
    with pytest.raises(DataError, match="half a surrogate pair"):
        encode(make_tokenizer(), "a\ud83db")


@pytest.mark.parametrize(("declared", "words"), [("2", "holds '2', which is no token id"), (128_001, "0 to 258")])
def test_a_stop_token_that_is_none_names_its_file(llama: Path, declared: object, words: str) -> None:
    (llama / "generation_config.json").write_text(json.dumps({"eos_token_id": declared}))
    with pytest.raises(ModelError, match=rf"generation_config\.json: eos_token_id .*{words}"):
        stop_ids(llama, load_tokenizer(llama))


def test_text_parts_are_joined_and_others_refused(llama: Path) -> None:
    """A template that prints a list prints Python's spelling of it, whoever hands the turns over."""
    tokenizer = load_tokenizer(llama)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "text"}]
    assert render_chat(tokenizer, [{"role": "user", "content": parts}]) == "[one text]"
    for content, words in (([{"type": "image_url"}], "parts that are no text"), (3, "content is int")):
        with pytest.raises(ModelError, match=words):
            render_chat(tokenizer, [{"role": "user", "content": content}])


def test_a_token_without_a_row_is_of_another_model() -> None:
    refuse_beyond((0, 260), 261, "facts: item 3")
    with pytest.raises(MismatchError, match=r"^facts: item 3: the tokenizer makes token id 261, .* 261 rows"):
        refuse_beyond((0, 261), 261, "facts: item 3")
