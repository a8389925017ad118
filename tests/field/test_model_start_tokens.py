"""Which token stands in front of a text, where tokenizer, config.json and generation_config.json disagree."""

import json
import math
from pathlib import Path

import pytest

from ..conftest import lines

pytest.importorskip("torch")

import torch
import transformers

from prune_cli.errors import ConfigurationError

from ..small_models import load

TEXT = "The quick brown fox jumps"
END = 0  # <|endoftext|> of `tiny_gpt2`: its BOS and its EOS


def edit(file: Path, **values: object) -> None:
    """Set values in a JSON file; None removes a name."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def prefix(path: Path, **settings: str) -> list[int]:
    document = load(path, **settings).encode(TEXT)
    return document.tokens[: document.n_prefix].tolist()


def test_a_bos_of_the_configuration_alone_counts(copy, gpt2, here, caplog):
    """The scores are those of transformers with that token in front."""
    (copy / "tokenizer_config.json").unlink()
    record = lines([{"id": 1, "text": TEXT}])
    settings = ("--device", "cpu", "--dtype", "float32", "--plain")
    scored = json.loads(here("score", "--model", copy, *settings, stdin=record).stdout)
    ids = transformers.PreTrainedTokenizerFast(tokenizer_file=str(gpt2 / "tokenizer.json"))(TEXT)["input_ids"]
    tokens = torch.tensor([[END, *ids]])
    network = transformers.AutoModelForCausalLM.from_pretrained(gpt2, dtype=torch.float64)
    with torch.no_grad():
        loss = float(network(tokens, labels=tokens).loss)
    assert scored["n_scored"] == len(ids)
    assert scored["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_no_file_of_the_tokenizer_is_needed_to_require_a_bos(copy):
    (copy / "tokenizer_config.json").unlink()
    assert prefix(copy, bos="always") == [END]


def test_a_generation_configuration_alone_counts_too(copy):
    (copy / "tokenizer_config.json").unlink()
    edit(copy / "config.json", bos_token_id=None, eos_token_id=None)
    edit(copy / "generation_config.json", bos_token_id=END)
    assert prefix(copy) == [END]


def test_a_tokenizer_gets_no_token_of_its_class(copy):
    """transformers adds GPT-2's <|endoftext|> to any tokenizer of a model of that kind: an id of no use."""
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["added_tokens"][0]["content"] = "<s>"
    tokenizer["model"]["vocab"]["<s>"] = tokenizer["model"]["vocab"].pop("<|endoftext|>")
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    (copy / "tokenizer_config.json").unlink()
    model = load(copy)
    assert model.encode(TEXT).tokens[0] == 0
    assert max(model.tokenizer.get_vocab().values()) == max(tokenizer["model"]["vocab"].values())


def with_second_token(path: Path) -> None:
    """Make id 1 the special token <s>."""
    file = path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 1, "content": "<s>"})
    spelled = next(token for token, number in tokenizer["model"]["vocab"].items() if number == 1)
    tokenizer["model"]["vocab"]["<s>"] = tokenizer["model"]["vocab"].pop(spelled)
    file.write_text(json.dumps(tokenizer))


def test_where_they_disagree_the_tokenizer_wins_and_a_warning_says_so(copy, caplog):
    with_second_token(copy)
    edit(copy / "config.json", bos_token_id=1)
    edit(copy / "generation_config.json", bos_token_id=1)
    assert prefix(copy) == [END]
    said = "BOS is <s> (1) in config.json and generation_config.json, but <|endoftext|> (0) is used"
    assert said in caplog.text


def test_a_bos_of_the_configuration_is_preferred_to_the_eos_of_the_tokenizer(copy, caplog):
    with_second_token(copy)
    edit(copy / "tokenizer_config.json", bos_token=None)
    edit(copy / "config.json", bos_token_id=1)
    edit(copy / "generation_config.json", bos_token_id=1)
    assert prefix(copy) == [1]
    assert "texts begin with <s> (1) of the configuration, not <|endoftext|> (0)" in caplog.text


def test_the_configuration_is_preferred_to_that_of_generation(copy, caplog):
    with_second_token(copy)
    edit(copy / "tokenizer_config.json", bos_token=None, eos_token=None)
    edit(copy / "config.json", bos_token_id=END)
    edit(copy / "generation_config.json", bos_token_id=1)
    assert prefix(copy) == [END]
    assert "BOS is <s> (1) in generation_config.json, but <|endoftext|> (0) is used" in caplog.text


def test_an_ordinary_token_is_no_bos_whatever_the_configuration_says(copy, caplog):
    """As where a configuration keeps the default of its class: Llama's is 1."""
    edit(copy / "tokenizer_config.json", bos_token=None)
    edit(copy / "config.json", bos_token_id=1)
    edit(copy / "generation_config.json", bos_token_id=None)
    assert prefix(copy) == [END]
    assert "BOS is ! (1) in config.json, but <|endoftext|> (0) is used" in caplog.text


def without_special_tokens(path: Path) -> None:
    edit(path / "tokenizer_config.json", bos_token=None, eos_token=None)
    for file in ("config.json", "generation_config.json"):
        edit(path / file, bos_token_id=None, eos_token_id=None)


def test_a_model_without_special_tokens_says_that_first_tokens_are_not_scored(copy, caplog):
    without_special_tokens(copy)
    assert prefix(copy) == []
    assert "no BOS and no EOS is known: the first token of each document is not scored" in caplog.text
    caplog.clear()
    assert prefix(copy, bos="never") == []
    assert not caplog.text
    with pytest.raises(ConfigurationError, match="neither BOS nor EOS"):
        load(copy, bos="always")


def test_a_model_in_order_warns_of_nothing(copy, caplog):
    assert prefix(copy) == [END]
    assert not caplog.text


# --- the other end of a text ---


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_pack_takes_the_eos_of_a_configuration(file, copy, here):
    without_special_tokens(copy)
    edit(copy / file, eos_token_id=[END, 5])
    record = lines([{"id": 1, "text": "a"}])
    packed = here("pack", "--tokenizer", copy, "--context", 2, "--plain", stdin=record)
    assert json.loads(packed.stdout)["input_ids"][-1] == END


def test_pack_warns_where_the_end_of_a_text_is_in_doubt(copy, here):
    with_second_token(copy)
    edit(copy / "config.json", eos_token_id=1)
    record = lines([{"id": 1, "text": "a"}])
    packed = here("pack", "--tokenizer", copy, "--context", 2, "--plain", stdin=record)
    assert json.loads(packed.stdout)["input_ids"][-1] == END
    assert b"EOS is <s> (1) in config.json, but <|endoftext|> (0) is used" in packed.stderr
