"""A tokenizer.json decides the tokens, whatever class tokenizer_config.json or config.json name."""

import json
import shutil
from pathlib import Path

import pytest

from ..conftest import lines

pytest.importorskip("torch")

from tokenizers import Tokenizer

from prune_cli.errors import ConfigurationError
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.models.text.tokenizer import encode, tokenizer_hash

from ..small_models import load, tiny_gpt2

# Qwen 2's rules cut numbers into digits, GPT-2's do not; Llama's keep no spaces of a byte-level tokenizer.
TEXT = "The quick  brown fox, 12,345\n sheep née"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def folder(gpt2, tmp_path) -> Path:
    """A tokenizer and the two files that describe it, without weights."""
    for file in gpt2.glob("*.json"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama", "mistral"])
@pytest.mark.parametrize(
    "name", ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer", "Unknown"]
)
def test_a_class_changes_no_token(kind, name, folder):
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    before = tokenizer_hash(load_tokenizer(folder))
    edit(folder / "config.json", model_type=kind)
    edit(folder / "tokenizer_config.json", tokenizer_class=name)
    tokenizer = load_tokenizer(folder)
    assert encode(tokenizer, [TEXT])[0].tolist() == expected
    assert tokenizer_hash(tokenizer) == before
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 0)


def test_a_model_is_scored_with_the_tokens_that_it_was_trained_on(gpt2, tmp_path, here):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    kind = {"model_type": "qwen2", "vocab_size": 320, "max_position_embeddings": 8, "num_key_value_heads": 2}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(shape | kind))
    settings = ("--config", config, "--tokenizer", gpt2, "--steps", 1, "--batch-tokens", 8, "--lr", 0.1)
    here("train", *settings, "-o", tmp_path / "run", stdin=lines([{"id": 1, "text": TEXT}]))
    scored = load(tmp_path / "run").encode(TEXT)
    assert scored.tokens[scored.n_prefix :].tolist() == encode(load_tokenizer(gpt2), [TEXT])[0].tolist()


# --- special tokens that the model has no embedding for ---


@pytest.fixture
def padded(gpt2, tmp_path) -> Path:
    """A padding token was added to the tokenizer, but no row to the embedding, as with many a Llama 2."""
    path = Path(shutil.copytree(gpt2, tmp_path / "padded"))
    tokenizer = load_tokenizer(path)
    tokenizer.add_tokens([f"more{number}" for number in range(320 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(path)
    assert tokenizer.pad_token_id == 320
    return path


def test_a_padding_token_beyond_the_embedding_changes_nothing(padded, gpt2):
    model, plain = load(padded), load(gpt2)
    [scored] = model.statistics([model.encode(TEXT)])
    [expected] = plain.statistics([plain.encode(TEXT)])
    assert scored["nll"].tolist() == expected["nll"].tolist()


def test_a_text_that_spells_such_a_token_is_an_error_of_that_record(padded, here):
    records = lines([{"id": 1, "text": TEXT}, {"id": 2, "text": "a [PAD] b"}])
    said = here("score", "--model", padded, "--plain", stdin=records, status=65).stderr.decode()
    assert "record 2" in said or ":2:" in said
    assert "spells [PAD] (320), a token that the model does not have" in said


def test_an_ordinary_token_beyond_the_embedding_is_refused(padded):
    tokenizer = load_tokenizer(padded)
    tokenizer.add_tokens(["beyond"])
    tokenizer.save_pretrained(padded)
    with pytest.raises(ConfigurationError, match="ids up to 321, but the model's vocabulary has 320"):
        load(padded)
