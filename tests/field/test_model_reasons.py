"""A model that cannot be used says why, and every kind of configuration says how long its context is."""

import json
from pathlib import Path

import pytest

from ..conftest import lines

pytest.importorskip("torch")

import torch
import transformers
from safetensors.torch import load_file, save_file

from prune_cli.errors import ConfigurationError
from prune_cli.models.description import context_length
from prune_cli.models.library_errors import first_line, remedy_of

from ..small_models import edit, load, save

RECORD = lines([{"id": 1, "text": "the quick brown fox " * 20}])


# --- weights that are no numbers ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["transformer.ln_f.weight", "transformer.wte.weight"])
def test_weights_that_are_not_finite_are_named(name, value, copy):
    """A single row of the embedding spoils only the scores of texts with that token."""
    weights = load_file(copy / "model.safetensors")
    weights[name].view(-1)[77 % weights[name].numel()] = value
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigurationError, match=rf"NaN or infinite numbers \({name}\)") as caught:
        load(copy)
    assert caught.value.place == str(copy)


@pytest.mark.parametrize("verb", ["score", "eval", "train"])
def test_each_verb_that_loads_weights_says_so(verb, copy, tmp_path, here):
    weights = load_file(copy / "model.safetensors")
    weights["transformer.ln_f.weight"][0] = float("nan")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    arguments = {
        "score": ["--model", copy],
        "eval": [copy, "--data", "-"],
        "train": ["--init-from", copy, "--steps", 1, "-o", tmp_path / "run"],
    }[verb]
    said = here(verb, *arguments, stdin=RECORD, status=78).stderr
    assert b"NaN or infinite numbers (transformer.ln_f.weight)" in said


def test_an_embedding_that_was_resized_alone_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    name = "transformer.wte.weight"
    weights[name] = torch.cat([weights[name], weights[name][:1]])
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ConfigurationError, match=f"{name} has two shapes: 321×32 in the file, 320×32 by config"
    ):
        load(copy)


# --- configurations ---


def test_a_null_in_the_configuration_is_named(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=320, max_position_embeddings=16, **shape)
    path = save(transformers.LlamaForCausalLM(config), tmp_path / "llama")
    edit(path / "config.json", max_position_embeddings=None)
    fault = r"'max_position_embeddings'.*; correct config\.json"
    with pytest.raises(ConfigurationError, match=fault) as caught:
        load(path)
    assert "tokenizer" not in str(caught.value)


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_an_encoder_decoder_is_called_so_first(kind, tmp_path, here):
    """Neither its context nor its weights are to blame."""
    shape = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, f"{kind}Config")(vocab_size=320, **(shape if kind == "T5" else {}))
    config.save_pretrained(tmp_path)
    said = here("score", "--model", tmp_path, stdin=RECORD, status=78).stderr.decode()
    assert f"{kind.lower()} is an encoder and a decoder, not a causal language model" in said


def test_train_calls_an_encoder_decoder_so(gpt2, tmp_path, here):
    config = transformers.T5Config(vocab_size=320)
    said = here(*train_config(tmp_path, gpt2, config), stdin=RECORD, status=78).stderr
    assert b"t5 is an encoder and a decoder" in said


def test_an_image_model_is_no_causal_model(copy):
    edit(copy / "config.json", model_type="vit")
    with pytest.raises(ConfigurationError, match="causal language model, and vit is not one"):
        load(copy)


CONTEXTS = [
    (transformers.GPT2Config(n_positions=48), 48),
    (transformers.LlamaConfig(max_position_embeddings=64), 64),
    (transformers.MptConfig(max_seq_len=40), 40),
    (transformers.AutoConfig.for_model("bloom", seq_length=56), 56),
    (transformers.CTRLConfig(n_positions=24), 24),
    (transformers.RwkvConfig(context_length=72), 72),
    (transformers.XLNetConfig(), None),
    (transformers.MambaConfig(), None),
]


@pytest.mark.parametrize(("config", "length"), CONTEXTS, ids=lambda value: type(value).__name__)
def test_the_context_has_another_name_in_each_architecture(config, length):
    assert context_length(config) == length


def test_mpt_is_scored_with_the_context_of_its_configuration(tmp_path):
    torch.manual_seed(1)
    config = transformers.MptConfig(d_model=32, n_heads=4, n_layers=1, vocab_size=320, max_seq_len=40)
    model = load(save(transformers.MptForCausalLM(config), tmp_path / "mpt"))
    assert model.settings.context == 40
    with pytest.raises(ConfigurationError, match="reads 40 tokens at most"):
        load(tmp_path / "mpt", context=41)


def train_config(tmp_path: Path, gpt2: Path, config: transformers.PretrainedConfig) -> list[object]:
    config.save_pretrained(tmp_path / "new")
    source = ["--config", tmp_path / "new" / "config.json", "--tokenizer", gpt2]
    return ["train", *source, "--steps", 1, "--batch-tokens", 16, "--lr", 0.1, "-o", tmp_path / "run"]


def test_train_reads_the_context_of_mpt(tmp_path, gpt2, here):
    config = transformers.MptConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=320, max_seq_len=16)
    here(*train_config(tmp_path, gpt2, config), stdin=RECORD)
    saved = json.loads((tmp_path / "run" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 16


def test_train_asks_for_a_context_that_the_configuration_lacks(tmp_path, gpt2, here):
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=320)
    said = here(*train_config(tmp_path, gpt2, config), stdin=RECORD, status=78).stderr
    assert b"does not say how many tokens the model reads; set max_position_embeddings" in said


# --- what libraries say ---


def test_a_missing_package_is_to_be_installed():
    """A model with such an error may well be a causal one."""
    error = ImportError("Loading this needs the sentencepiece library")
    assert "install" in remedy_of(error, "it must be a causal language model")
    assert "install" in remedy_of(ValueError("`pip install tiktoken`"), "use another model")
    assert remedy_of(ValueError(), "use another model") == "use another model"


def test_a_line_that_only_announces_the_next_is_followed_by_it():
    assert first_line(ValueError("\n  field 'x':\n   expected int\nmore")) == "field 'x': expected int"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
