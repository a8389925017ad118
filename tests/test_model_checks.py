"""Damaged, incomplete and unsuitable models are refused with a reason, and nothing else is printed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from prune_cli.errors import ConfigurationError, UnavailableError, UsageError
from prune_cli.models import language_model as lm
from prune_cli.models import safety

from .small_models import CONTEXT, TEXTS, load, save, tiny_gpt2


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


# --- what cannot be used ---


@pytest.fixture
def copy(gpt2, tmp_path) -> Path:
    return Path(shutil.copytree(gpt2, tmp_path / "copy"))


def refused(path: Path, words: str) -> None:
    """By the cheap check, before anything is loaded; and by the loader, for those who did not check."""
    for function in (safety.check, lm.load):
        with pytest.raises(ConfigurationError, match=words) as caught:
            function(str(path))
        assert caught.value.place
        assert caught.value.remedy


def test_a_sound_model_passes(gpt2):
    safety.check(str(gpt2))


def test_a_directory_that_is_missing_or_a_file_is_refused(tmp_path, copy):
    refused(tmp_path / "none", "no such model directory")
    refused(copy / "config.json", "not a directory")
    refused(tmp_path, r"no config\.json")


@pytest.mark.parametrize("config", [b"{", b"[]", b"\xff"])
def test_a_configuration_that_is_not_json_is_refused(config, copy):
    (copy / "config.json").write_bytes(config)
    refused(copy, "config.json")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(keep, copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(copy, "truncated or damaged")


def test_missing_weights_and_pickles_are_refused(copy):
    (copy / "model.safetensors").unlink()
    refused(copy, "no weights")
    (copy / "pytorch_model.bin").write_bytes(b"never opened")
    refused(copy, "pickle")


def test_a_missing_shard_is_refused(copy):
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(copy, "missing")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_models_own_is_never_run(name, copy):
    config = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    refused(copy, "auto_map")


def test_a_model_without_a_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    refused(copy, "no tokenizer")


def edit(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **values}))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(copy):
    edit(copy, vocab_size=300)
    with pytest.raises(
        ConfigurationError,
        match="the tokenizer has ids up to 319, but the model's vocabulary has 300 entries",
    ):
        load(copy)


def test_missing_layers_are_refused_and_extra_layers_give_a_warning(copy, caplog):
    edit(copy, n_layer=3)
    with pytest.raises(ConfigurationError, match="the weights lack"):
        load(copy)
    edit(copy, n_layer=1)
    load(copy)
    assert "does not use some of the weights" in caplog.text
    edit(copy, n_layer=2, n_embd=16)
    with pytest.raises(ConfigurationError, match="two shapes: 96 in the file, 48 by config"):
        load(copy)


def test_an_unknown_architecture_is_refused(copy):
    edit(copy, model_type="nonesuch")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load(copy)


def test_a_bidirectional_model_is_refused(tmp_path):
    """transformers loads BERT as a causal model, and warns of it in a log that we have silenced."""
    config = transformers.BertConfig(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=CONTEXT,
    )
    save(transformers.BertLMHeadModel(config), tmp_path)
    with pytest.raises(ConfigurationError, match="attention is bidirectional"):
        load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"dtype": "float16"},
        {"bos": "maybe"},
        {"context": 0},
        {"stride": -1},
        {"batch_tokens": 0},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UsageError, match="--"):
        lm.ModelSettings(**settings)


def test_settings_beyond_the_model_or_machine_are_refused(gpt2):
    with pytest.raises(ConfigurationError, match="reads 32 tokens at most"):
        load(gpt2, context=33)
    with pytest.raises(UsageError, match="would skip tokens"):
        load(gpt2, context=8, stride=9)
    with pytest.raises(ConfigurationError, match="no such device"):
        load(gpt2, device="cuda:99")


def test_recorded_settings_have_values_for_auto(gpt2):
    settings = lm.load(str(gpt2)).settings
    assert settings.dtype in ("float32", "bfloat16")
    assert (settings.context, settings.stride, settings.bos) == (CONTEXT, CONTEXT, "auto")


@pytest.mark.parametrize("name", ["./x", "/x", "../x", "~/x", "x/", "a/b/c", "a//b", ""])
def test_paths_are_never_tried_on_the_hub(name):
    assert safety.is_local(name)


def test_a_name_that_is_not_a_path_is_tried_on_the_hub(tmp_path, monkeypatch):
    assert not safety.is_local("gpt2")
    assert not safety.is_local("EleutherAI/pythia-70m")
    monkeypatch.chdir(tmp_path)
    Path("gpt2").mkdir()
    assert safety.is_local("gpt2")


def test_a_hub_that_does_not_answer_is_status_69(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    safety.check("no-such-owner/no-such-model")
    with pytest.raises(UnavailableError, match="begin a path with"):
        lm.load("no-such-owner/no-such-model")


def test_the_libraries_print_nothing(gpt2, capfd):
    model = load(gpt2)
    assert list(model.statistics(model.encode_many(TEXTS)))
    assert capfd.readouterr() == ("", "")
