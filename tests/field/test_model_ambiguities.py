"""Scores that must not depend on other texts, on stale weights, or on files that were never downloaded."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from safetensors.torch import load_file, save_file

from ..small_models import load, save, tiny_gpt2

SHORT, LONG = "the quick brown fox", "the quick brown fox jumps over the lazy dog; " * 3
ROTATIONS = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 5.0, 6.0, 7.0],
    "original_max_position_embeddings": 20,
    "factor": 4.0,
}


def likelihoods(network, tokens: np.ndarray) -> np.ndarray:
    """As plain transformers computes them for one text by itself, in float64."""
    ids = torch.tensor(tokens.tolist())
    with torch.no_grad():
        logits = network(ids[None]).logits[0, :-1].double()
    return -torch.log_softmax(logits, -1).gather(1, ids[1:, None])[:, 0].numpy()


def test_a_batch_does_not_change_the_rotations_of_its_shorter_texts(tmp_path):
    """With longrope transformers chooses one set of rotations for a batch, by the longest text in it."""
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=320, max_position_embeddings=128, rope_parameters=ROTATIONS, bos_token_id=0, **shape
    )
    path = save(transformers.LlamaForCausalLM(config), tmp_path)
    model = load(path)
    # 19 tokens would be padded to 24, more than the 20 that the first set serves.
    documents = model.encode_many([SHORT, LONG, "jumps " * 17])
    assert [len(document.tokens) for document in documents][1:] == [32, 20]
    reference = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    for document, scored in zip(documents, model.statistics(documents), strict=True):
        expected = likelihoods(reference, document.tokens)
        assert scored["nll"] == pytest.approx(expected, abs=1e-4)


def test_two_sets_of_weights_are_named_and_the_first_is_used(tmp_path, caplog):
    """A file that was left behind by a merge, or by a change of format."""
    path = tiny_gpt2(tmp_path)
    document = load(path).encode(SHORT)
    before = load(path).statistics([document])[0]["nll"]
    weights = load_file(path / "model.safetensors")
    save_file(
        {name: 2 * weight for name, weight in weights.items()}, path / "1.safetensors", {"format": "pt"}
    )
    index = {"weight_map": dict.fromkeys(weights, "1.safetensors")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(path).statistics([document])[0]["nll"].tolist() == before.tolist()
    assert "of model.safetensors and model.safetensors.index.json, only the first is used" in caplog.text


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.zst"])
@pytest.mark.parametrize("verb", ["rank", "stat"])
def test_data_may_be_pointers_of_git_lfs_too(verb, name, tmp_path, here):
    pointer = tmp_path / name
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3434\n")
    said = here(verb, pointer, status=65).stderr
    assert b"only a pointer of Git LFS: the file itself was not downloaded; run git lfs pull" in said
