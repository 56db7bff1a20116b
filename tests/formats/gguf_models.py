"""Tiny models whose tokenizer llama.cpp can load."""

from pathlib import Path

VOCABULARY = 259  # tokens of the tests' tokenizer


def merging(folder: Path) -> Path:
    """Gives the model in `folder` a tokenizer that merges a few pairs: llama.cpp loads none that merges nothing."""
    from tokenizers import Tokenizer, models

    path = folder / "tokenizer.json"
    whole = Tokenizer.from_file(str(path))
    vocabulary = {text: index for text, index in whole.get_vocab().items() if index < VOCABULARY - 2}
    pairs = [("l", "l"), ("Ġ", "w")]
    vocabulary |= {left + right: VOCABULARY - 2 + index for index, (left, right) in enumerate(pairs)}
    whole.model = models.BPE(vocab=vocabulary, merges=pairs, unk_token="<unk>")
    whole.save(str(path))
    return folder
