"""The bundled models and their tokenizer, as any Hugging Face program sees them."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qtool import reference
from qtool.data import generators
from qtool.errors import UnknownName
from qtool.evaluate.items import prompts
from qtool.evaluate.items.tasks import load_task
from qtool.reference.corpus import MIXTURE

DEFAULT = "reference-256"


@pytest.fixture(scope="module")
def words():
    return AutoTokenizer.from_pretrained(reference.folder(DEFAULT))


def test_the_ladder_is_listed_smallest_first_and_fits_the_promised_size() -> None:
    assert reference.names() == ("reference-64", "reference-128", "reference-256")
    assert DEFAULT in reference.names()
    files = [path for name in reference.names() for path in reference.folder(name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert not [path.name for path in files if path.suffix in (".pt", ".bin", ".partial")]


def test_an_unknown_model_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="reference-128"):
        reference.folder("reference-129")


@pytest.mark.parametrize("name", reference.names())
def test_every_model_loads_and_answers_with_digits(name: str, words) -> None:
    model = AutoModelForCausalLM.from_pretrained(reference.folder(name))
    assert model.dtype == torch.bfloat16
    sizes = {size for parameter in model.parameters() for size in parameter.shape}
    assert all(size % 64 == 0 for size in sizes)
    prompt = words("Question: What is 2 + 3?\nAnswer:", return_tensors="pt")
    text = words.decode(model.generate(**prompt, max_new_tokens=24, do_sample=False)[0], skip_special_tokens=True)
    assert text.removeprefix("Question: What is 2 + 3?\nAnswer: ")[0].isdigit()


@pytest.mark.parametrize("name", reference.names())
def test_the_ladder_shares_one_tokenizer_and_tells_how_it_was_trained(name: str) -> None:
    folder = reference.folder(name)
    shared = reference.folder(DEFAULT) / "tokenizer.json"
    assert (folder / "tokenizer.json").read_bytes() == shared.read_bytes()
    record = json.loads((folder / "training.json").read_text())
    assert record["step"] == record["recipe"]["steps"]
    assert record["curve"][-1]["step"] == record["step"]
    assert record["command"] in (folder / "README.md").read_text()


def test_digits_are_single_tokens_and_text_survives(words) -> None:
    for text in ("12345 67", "$9,876.05", "a1b2"):
        pieces = [words.decode([token]) for token in words(text, add_special_tokens=False)["input_ids"]]
        assert "".join(pieces) == text
        assert all(len(piece) == 1 for piece in pieces if any(letter.isdigit() for letter in piece))
    odd = "Größe 日本 🙂\ttab\n\n"
    assert words.decode(words(odd, add_special_tokens=False)["input_ids"]) == odd


@pytest.mark.parametrize("task", MIXTURE)
def test_prompts_and_answers_fit_and_meet_where_they_are_joined(task: str, words) -> None:
    spec = load_task(task)
    for item in generators.draw(task, "test", spec.seed, 200):
        prompt = prompts.fill(spec.prompt, item)
        asked, answered = words(prompt)["input_ids"], words(item.answer, add_special_tokens=False)["input_ids"]
        assert words(prompt + item.answer)["input_ids"] == asked + answered
        assert asked[0] == words.bos_token_id
        assert len(answered) + 1 <= spec.max_new_tokens
        assert len(asked) + spec.max_new_tokens <= words.model_max_length


def test_a_chat_turn_is_the_plain_prompt(words) -> None:
    turn = [{"role": "user", "content": "What is 2 + 3?"}]
    chat = words.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert chat == words("Question: What is 2 + 3?\nAnswer:")["input_ids"]
    longer = [*turn, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And 1 + 1?"}]
    text = words.apply_chat_template(longer, tokenize=False)
    assert text == "<s>Question: What is 2 + 3?\nAnswer: 5</s>\nQuestion: And 1 + 1?\nAnswer:"


def test_finding_a_model_does_not_load_torch() -> None:
    code = (
        "import sys; from qtool import reference; reference.folder('reference-128'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
