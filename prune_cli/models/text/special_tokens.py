"""Which tokens begin and end a text? Tokenizer, config.json and generation_config.json are asked together.

What a tokenizer's own files name counts most: its rules made the texts that the model was trained on. Where
they name nothing (tokenizer_config.json is missing, or says null), the configurations do. What the class of a
tokenizer has as a default comes last: transformers adds such a token to the vocabulary if it is not there.
"""

import json
from pathlib import Path
from typing import Any

from ..description import token_ids

TOKENIZER_CONFIG = "tokenizer_config.json"
FILES = (TOKENIZER_CONFIG, "special_tokens_map.json")  # the older one of the two still counts
START, END = "bos_token", "eos_token"


def complete(tokenizer: Any, folder: Path) -> None:
    """Give a tokenizer the BOS and EOS of the configurations beside it, where its own files name none."""
    for name in (START, END):
        token = _configured(tokenizer, folder, name)
        if token is not None and not _is_named(folder, name):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token))


def warnings_about_start(tokenizer: Any, folder: Path) -> list[str]:
    """Sentences about a BOS, or a lack of it, that changes every score; `tokenizer` is complete."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is None and eos is None:
        lack = "no BOS and no EOS is known: the first token of each document is not scored"
        return [*_contradictions(tokenizer, folder, START, None), lack]
    if bos is None or _is_named(folder, START):
        return _contradictions(tokenizer, folder, START, eos if bos is None else bos)
    # One of the configurations named it, and the other may not agree.
    sentences = _contradictions(tokenizer, folder, START, bos)
    # Without them, EOS would stand in front, as in lm-evaluation-harness.
    if _is_named(folder, END) and bos != eos:
        start, end = _spelled(tokenizer, bos), _spelled(tokenizer, eos)
        sentences.append(
            f"the tokenizer names no BOS: texts begin with {start} of the configuration, not {end}"
        )
    return sentences


def warnings_about_end(tokenizer: Any, folder: Path) -> list[str]:
    """Sentences about an EOS that the configurations contradict; `tokenizer` is complete."""
    return _contradictions(tokenizer, folder, END, tokenizer.eos_token_id)


def _contradictions(tokenizer: Any, folder: Path, name: str, used: int | None) -> list[str]:
    """A sentence for each token that configurations name instead of the one that is used."""
    files: dict[int, list[str]] = {}
    for file, ids in token_ids(folder, f"{name}_id").items():
        if used not in ids:
            files.setdefault(ids[0], []).append(file)
    kind = "BOS" if name == START else "EOS"
    end = f"but {_spelled(tokenizer, used)} is used"
    return [
        f"{kind} is {_spelled(tokenizer, token)} in {' and '.join(named)}, {end}"
        for token, named in files.items()
    ]


def _spelled(tokenizer: Any, token: int | None) -> str:
    if token is None:
        return "none"
    text = tokenizer.convert_ids_to_tokens(token)
    return f"{text} ({token})" if isinstance(text, str) else f"{token} (no token)"


def _configured(tokenizer: Any, folder: Path, name: str) -> int | None:
    """The first id that a configuration names and that is a special token of the tokenizer."""
    # Configurations keep the default of their class: Llama's 1 may be an ordinary letter here.
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = [token for named in token_ids(folder, f"{name}_id").values() for token in named]
    return next((token for token in ids if token in special), None)


def _is_named(folder: Path, name: str) -> bool:
    """Whether the tokenizer's own files name a token."""
    return any(_content(folder / file).get(name) for file in FILES)


def _content(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):  # transformers has read them, so they are missing
        return {}
    return value if isinstance(value, dict) else {}
