"""Files in a model's folder that change what the model is, or only stand for another file, are named."""

import json
from pathlib import Path

import pytest

from ..conftest import lines

pytest.importorskip("torch")

from prune_cli.errors import ConfigurationError
from prune_cli.models import safety

from ..small_models import edit

RECORD = lines([{"id": 1, "text": "the quick brown fox"}])
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3434\n"
LORA = {"peft_type": "LORA", "base_model_name_or_path": "meta-llama/Llama-3.1-8B"}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        safety.check(str(path))
    for word in words:
        assert word in str(caught.value)


# --- adapters ---


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "my-lora.bin"])
def test_an_adapter_beside_a_model_is_refused(name, copy):
    (copy / name).write_text(json.dumps(LORA))
    refused(copy, f"{name} belongs to an adapter", "merge the two first", "merge_and_unload")


def test_an_adapter_alone_names_the_model_that_it_needs(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    refused(tmp_path, "holds an adapter alone", "to be added to meta-llama/Llama-3.1-8B")


def test_files_with_similar_names_are_no_adapters(copy):
    (copy / "diffusion.safetensors").write_bytes(b"")
    (copy / "explorations.bin").write_bytes(b"")
    safety.check(str(copy))


def test_weights_in_use_may_be_called_as_they_like(copy):
    (copy / "model.safetensors").rename(copy / "merged-lora.safetensors")
    index = {"weight_map": {"transformer.wte.weight": "merged-lora.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    safety.check(str(copy))


@pytest.fixture
def adapted(copy) -> Path:
    (copy / "adapter_config.json").write_text(json.dumps(LORA))
    return copy


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "--model", "ADAPTED"],
        ["score", "--model", "GPT2", "--against", "ADAPTED", "-m", "excess_loss"],
        ["eval", "ADAPTED", "--data", "-"],
        ["eval", "GPT2", "--against", "ADAPTED", "--data", "-"],
        ["train", "--init-from", "ADAPTED", "--steps", "1", "-o", "RUN"],
    ],
    ids=["score", "score --against", "eval", "eval --against", "train --init-from"],
)
def test_every_verb_refuses_an_adapter(arguments, adapted, gpt2, tmp_path, here):
    names = {"ADAPTED": adapted, "GPT2": gpt2, "RUN": tmp_path / "run"}
    said = here(*(names.get(word, word) for word in arguments), stdin=RECORD, status=78).stderr
    assert b"belongs to an adapter" in said
    assert said.count(b"\n") == 1


def test_the_tokenizer_beside_an_adapter_is_used(adapted, here):
    here("pack", "--tokenizer", adapted, "--context", 2, stdin=RECORD)
    (adapted / "tokenizer.json").unlink()
    said = here("pack", "--tokenizer", adapted, "--context", 2, stdin=RECORD, status=78).stderr
    assert b"holds an adapter alone" in said


# --- quantized weights ---


def test_quantized_weights_are_refused_by_their_method(copy):
    edit(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(copy, "the weights are quantized", "config.json (quantization_config: gptq)", "original weights")
    edit(copy / "config.json", quantization_config=None)
    safety.check(str(copy))


def test_a_section_of_the_configuration_may_say_that_they_are_quantized(copy):
    edit(copy / "config.json", text_config={"quantization_config": {"load_in_4bit": True}})
    refused(copy, "config.json (quantization_config)")


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_quantization_may_be_described_in_a_file_of_its_own(name, copy):
    (copy / name).write_text("{}")
    refused(copy, "the weights are quantized", name)


def test_train_makes_no_model_of_a_quantized_configuration(copy, tmp_path, here):
    edit(copy / "config.json", quantization_config={"quant_method": "awq"})
    arguments = ("--config", copy / "config.json", "--tokenizer", copy, "--steps", 1, "-o", tmp_path / "run")
    said = here("train", *arguments, stdin=RECORD, status=78).stderr
    assert b"the weights are quantized" in said


# --- pointers of Git LFS ---


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model"],
)
def test_a_pointer_of_git_lfs_is_called_so(name, copy):
    (copy / name).write_text(POINTER)
    refused(copy / "", name, "is only a pointer of Git LFS", f"run git lfs pull in {copy}")


def test_a_part_of_the_weights_may_be_a_pointer(copy):
    (copy / "model.safetensors").unlink()
    (copy / "part.safetensors").write_text(POINTER)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    refused(copy, "part.safetensors", "is only a pointer of Git LFS")


def test_weights_for_another_program_may_stay_pointers(copy):
    (copy / "consolidated.safetensors").write_text(POINTER)
    (copy / "pytorch_model.bin").write_text(POINTER)
    safety.check(str(copy))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_pack_and_train_call_a_tokenizer_a_pointer_too(name, copy, gpt2, tmp_path, here):
    (copy / name).write_text(POINTER)
    said = here("pack", "--tokenizer", copy, "--context", 2, stdin=RECORD, status=78).stderr
    assert b"is only a pointer of Git LFS" in said
    arguments = ("--config", gpt2 / "config.json", "--tokenizer", copy, "--steps", 1, "-o", tmp_path / "run")
    assert b"is only a pointer of Git LFS" in here("train", *arguments, stdin=RECORD, status=78).stderr


def test_train_calls_a_configuration_a_pointer_too(copy, gpt2, tmp_path, here):
    (copy / "config.json").write_text(POINTER)
    arguments = ("--config", copy / "config.json", "--tokenizer", gpt2, "--steps", 1, "-o", tmp_path / "run")
    assert b"is only a pointer of Git LFS" in here("train", *arguments, stdin=RECORD, status=78).stderr
