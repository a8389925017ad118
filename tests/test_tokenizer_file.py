"""A tokenizer's files without transformers: the same tokenizer as with it, or none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken

from prune_cli.models.text import tokenizer_file
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.models.text.tokenizer import tokenizer_hash, vocabulary_size

from .conftest import ROOT
from .small_models import byte_level_tokenizer

END = "<|endoftext|>"
PAD = {"content": "<pad>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tokenizer.json with a special and an ordinary added token, and nothing beside it."""
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.add_tokens([AddedToken("<pad>", special=True), AddedToken("tool")])
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def hashes(folder: Path) -> tuple[str, str]:
    """The hash of the tokenizer without transformers, and with it."""
    own, expected = tokenizer_file.read(folder), load_tokenizer(folder, needs_eos=False)
    assert vocabulary_size(own) == vocabulary_size(expected)
    assert {*expected.all_special_ids} <= {*own.all_special_ids}
    return tokenizer_hash(own), tokenizer_hash(expected)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {
            "eos_token": END,
            "pad_token": {**PAD, "__type": "AddedToken"},
            "unk_token": None,
            "add_bos_token": True,
        },
        {"extra_special_tokens": ["<pad>"], "model_max_length": 9, "tokenizer_class": "Qwen2Tokenizer"},
        {"additional_special_tokens": [END], "clean_up_tokenization_spaces": False},
    ],
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_files_that_add_nothing_need_no_transformers(content, name, folder):
    (folder / name).write_text(json.dumps(content))
    own, expected = hashes(folder)
    assert own == expected


def test_added_tokens_may_be_listed_twice(folder):
    byte_level_tokenizer().save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_bytes())
    listed = {str(token.pop("id")): token for token in content["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    own, expected = hashes(folder)
    assert own == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "<new>"}),
        ("tokenizer_config.json", {"eos_token": "tool"}),  # which would become special
        ("tokenizer_config.json", {"image_token": "<new>"}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "<new>"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {**PAD, "special": True}}}),
        ("tokenizer_config.json", {"fix_mistral_regex": True}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<new>"]}),
        ("added_tokens.json", {"<new>": 999}),
        ("tokenizer_config.json", None),
        ("tokenizer.json", {}),
    ],
)
def test_whatever_changes_tokens_is_left_to_transformers(name, content, folder):
    (folder / name).write_text(json.dumps(content) if content is not None else "{")
    assert tokenizer_file.read(folder) is None


def test_gpt2s_two_files_need_no_transformers(tmp_path):
    byte_level_tokenizer().backend_tokenizer.model.save(str(tmp_path))
    own, expected = hashes(tmp_path)
    assert own == expected
    # Beside a configuration they may be those of another class.
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert tokenizer_file.read(tmp_path) is None


@pytest.mark.parametrize("module", ["texts.priors", "stages.stat.token_counting"])
def test_counting_tokens_imports_no_transformers(module):
    script = f"import prune_cli.{module}, sys; print([*sys.modules.keys() & {{'torch', 'transformers'}}])"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"
