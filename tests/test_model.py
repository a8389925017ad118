"""The model: each token is scored once, as by plain transformers in float64; nothing unusable is loaded."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from prune_cli.errors import ConfigurationError, DataError, OutOfMemoryError
from prune_cli.models import language_model as lm
from prune_cli.models.device import resolve_dtype

from .conftest import SHARED, shared
from .small_models import CONTEXT, END, IDS, PROSE, TEXTS, byte_level_tokenizer, load, save, tiny_gpt2


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


def nll(model: lm.LanguageModel, *contents: lm.Content) -> list[np.ndarray]:
    return [each["nll"] for each in model.statistics(model.encode_many(contents))]


@cache
def double(path: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def plain(path: Path, tokens: list[int], context: int, stride: int) -> list[float]:
    """A user's own loop in float64: for each token, the window that scores it."""
    found, logits = [], {}
    for at in range(1, len(tokens)):
        steps = -(-max(0, at - context) // stride)  # windows before the one that scores this token
        end = min(len(tokens) - 1, context + steps * stride)
        start = max(0, end - context)
        if end not in logits:
            with torch.inference_mode():
                logits[end] = double(path)(input_ids=torch.tensor([tokens[start:end]])).logits[0]
        row = logits[end][at - 1 - start]
        found.append(float(torch.logsumexp(row, -1) - row[tokens[at]]))
    return found


# --- windows ---


def rolling(tokens: list[int], context: int, stride: int) -> list[tuple[list[int], list[int]]]:
    """Our windows as lm-evaluation-harness has them: (tokens fed, tokens predicted), with -100 as the
    prefix.
    """
    sequence = [-100, *tokens]
    return [
        (sequence[start : end - 1], sequence[first:end])
        for start, end, first in lm.window_bounds(len(sequence), context, stride)
    ]


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def test_windows_are_those_of_lm_evaluation_harness():
    """The values of its own tests: get_rolling_token_windows with max_seq_len 10 and context_len 1."""
    assert rolling(span(0, 33), 10, 10) == [
        ([-100, *span(0, 8)], span(0, 9)),
        (span(9, 18), span(10, 19)),
        (span(19, 28), span(20, 29)),
        (span(23, 32), span(30, 33)),
    ]


def test_a_stride_below_the_context_is_the_harness_context_len():
    """The same with context_len 5: stride = 10 - 5 + 1."""
    assert rolling(span(0, 33), 10, 6) == [
        ([-100, *span(0, 8)], span(0, 9)),
        (span(5, 14), span(10, 15)),
        (span(11, 20), span(16, 21)),
        (span(17, 26), span(22, 27)),
        (span(23, 32), span(28, 33)),
    ]


@pytest.mark.parametrize(
    ("length", "context", "stride", "expected"),
    [
        (0, 4, 4, []),
        (1, 4, 4, []),
        (2, 4, 4, [(0, 2, 1)]),
        (5, 4, 4, [(0, 5, 1)]),
        (6, 4, 4, [(0, 5, 1), (1, 6, 5)]),
        (10, 4, 3, [(0, 5, 1), (3, 8, 5), (5, 10, 8)]),
        (4, 1, 1, [(0, 2, 1), (1, 3, 2), (2, 4, 3)]),
    ],
)
def test_windows_by_hand(length, context, stride, expected):
    assert list(lm.window_bounds(length, context, stride)) == expected


@pytest.mark.parametrize("context", [1, 2, 5, 8])
def test_every_token_but_the_first_is_scored_exactly_once(context):
    for stride in range(1, context + 1):
        for length in range(40):
            found = list(lm.window_bounds(length, context, stride))
            assert [at for _, end, first in found for at in range(first, end)] == list(range(1, length))
            assert all(0 <= start < first < end <= start + context + 1 for start, end, first in found)


# --- likelihoods ---


@pytest.mark.parametrize("which", ["gpt2", pytest.param("stories260k", marks=shared)])
@pytest.mark.parametrize(
    ("context", "stride", "bos"), [(CONTEXT, CONTEXT, "auto"), (CONTEXT, 7, "auto"), (16, 16, "never")]
)
def test_likelihoods_are_those_of_plain_transformers_in_float64(which, context, stride, bos, gpt2):
    path = gpt2 if which == "gpt2" else SHARED / "data" / which
    model = load(path, context=context, stride=stride, bos=bos, batch_tokens=100)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    prefix = [] if bos == "never" else [tokenizer.bos_token_id]
    sequences = [[*prefix, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS] + [IDS]
    for ours, tokens in zip(nll(model, *TEXTS, IDS), sequences, strict=True):
        expected = plain(path, tokens, context, stride)
        assert len(ours) == max(0, len(tokens) - 1)
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert ours.sum() == pytest.approx(sum(expected), rel=1e-5)


def test_scores_do_not_depend_on_the_batch(gpt2):
    together = nll(load(gpt2, batch_tokens=1000), *TEXTS, IDS)
    for content, expected in zip([*TEXTS, IDS], together, strict=True):
        [alone] = nll(load(gpt2, batch_tokens=1), content)
        assert alone == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_results_come_in_the_order_of_the_documents(gpt2):
    model = load(gpt2)
    documents = model.encode_many(TEXTS)
    there, back = model.statistics(documents), model.statistics(documents[::-1])[::-1]
    assert [len(one["nll"]) for one in there] == [document.n_scored for document in documents]
    assert all(
        one["nll"] == pytest.approx(other["nll"], rel=1e-4, abs=1e-5)
        for one, other in zip(there, back, strict=True)
    )


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        (
            "GPTJ",
            {"n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": CONTEXT},
        ),  # the output layer has a bias
        (
            "Cohere",
            {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "logit_scale": 0.3},
        ),
        (
            "Gemma2",
            {
                "hidden_size": 32,
                "num_attention_heads": 4,
                "head_dim": 8,
                "intermediate_size": 64,
                "final_logit_softcapping": 1.5,
            },
        ),
    ],
)
def test_heads_that_are_more_than_a_matrix_product_are_right(architecture, more, tmp_path):
    torch.manual_seed(2)
    if architecture != "GPTJ":
        more |= {"num_hidden_layers": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=320, bos_token_id=0, eos_token_id=0, pad_token_id=0, **more
    )
    path = save(getattr(transformers, f"{architecture}ForCausalLM")(config), tmp_path)
    model = load(path)
    assert (model._head.weight is None) == (architecture != "GPTJ"), "which way is taken is found by trying"
    [ours, _] = nll(model, PROSE, "a")
    assert ours == pytest.approx(
        plain(path, model.encode(PROSE).tokens.tolist(), CONTEXT, CONTEXT), rel=1e-4, abs=1e-4
    )


def test_bfloat16_is_near_float32(gpt2):
    for exact, near in zip(nll(load(gpt2), *TEXTS), nll(load(gpt2, dtype="bfloat16"), *TEXTS), strict=True):
        assert near.sum() == pytest.approx(exact.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("hardware", "library", "expected"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_bfloat16_is_chosen_where_cpu_and_library_multiply_it(hardware, library, expected, monkeypatch):
    """A library that emulates it takes ten times as long as in float32."""
    capabilities = {"avx2": True, "avx512_bf16": hardware}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: library, raising=False)
    assert resolve_dtype("auto", torch.device("cpu")) == expected


def test_when_memory_runs_out_batches_are_halved(gpt2, caplog):
    model = load(gpt2)
    expected, trunk = nll(model, *TEXTS), model._trunk

    def small(tokens: torch.Tensor) -> torch.Tensor:
        if len(tokens) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return trunk(tokens)

    model._trunk, limit = small, 3
    for ours, exact in zip(nll(model, *TEXTS), expected, strict=True):
        assert ours == pytest.approx(exact, rel=1e-4, abs=1e-5)
    assert "out of memory: continuing with" in caplog.text
    limit = 0
    with pytest.raises(OutOfMemoryError, match="lower --context"):
        nll(model, *TEXTS)


def test_other_failures_of_the_trunk_are_not_hidden(gpt2):
    model = load(gpt2)

    def broken(tokens: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    model._trunk = broken
    with pytest.raises(RuntimeError, match="shapes"):
        nll(model, "x")


# --- tokens ---


def test_a_text_gets_a_prefix_and_a_block_gets_none(gpt2):
    auto, always, never = (load(gpt2, bos=bos) for bos in ("auto", "always", "never"))
    assert auto.encode("ab").tokens.tolist()[0] == 0
    assert auto.encode([5, 6]).tokens.tolist() == [5, 6]
    assert always.encode([5, 6]).tokens.tolist() == [0, 5, 6]
    assert never.encode("ab").tokens.tolist() == auto.encode("ab").tokens.tolist()[1:]
    assert [model.encode("").n_scored for model in (auto, always, never)] == [0, 0, 0]


def test_a_bos_that_the_tokenizer_adds_itself_is_not_doubled(gpt2, tmp_path):
    path = Path(shutil.copytree(gpt2, tmp_path / "adds"))
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, 0)]
    )
    tokenizer.save_pretrained(path)
    assert transformers.AutoTokenizer.from_pretrained(path)("ab")["input_ids"][0] == 0
    assert load(path).encode("ab").tokens.tolist() == load(gpt2).encode("ab").tokens.tolist()


def test_bytes_of_the_scored_tokens(gpt2):
    auto, never = load(gpt2), load(gpt2, bos="never")
    for text in TEXTS:
        assert auto.encode(text).n_bytes == len(text.encode())
    first = len(auto.tokenizer.convert_ids_to_tokens([never.encode(PROSE).tokens[0]])[0])
    assert never.encode(PROSE).n_bytes == len(PROSE.encode()) - first
    ids = auto.encode(PROSE).tokens.tolist()
    assert auto.encode(ids).n_bytes == len(PROSE.encode())
    assert auto.encode([*ids, 0]).n_bytes == len(PROSE.encode()), "the end of a text is no text"
    assert never.encode("").n_bytes == 0


@shared
def test_bytes_of_a_vocabulary_with_byte_fallback():
    never = load(SHARED / "data" / "stories260k", bos="never")
    ids = never.encode("Once 日").tokens.tolist()
    assert never.encode("Once 日").n_bytes == len("Once 日") + 2 - len("Once")
    assert never.encode(" a").n_bytes == 2, "the first token is the space that sentencepiece adds"
    assert never.encode(ids).n_bytes == len(" 日".encode())


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """A model whose tokenizer knows three words."""
    vocabulary = {"<unk>": 0, "the": 1, "fox": 2, "runs": 3}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    config = transformers.GPT2Config(vocab_size=4, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    return save(transformers.GPT2LMHeadModel(config), tmp_path_factory.mktemp("words"), tokenizer)


def test_unknown_tokens_are_counted(words):
    assert load(words).encode("the quick fox jumps").n_unknown == 2


def test_without_bos_and_eos_the_first_token_is_not_scored(words):
    document = load(words).encode("the fox runs")
    assert (document.n_scored, document.n_bytes) == (2, None)
    with pytest.raises(ConfigurationError, match="neither BOS nor EOS"):
        load(words, bos="always")


@pytest.mark.parametrize("ids", [[1, 320], [-1], [10**30]])
def test_ids_outside_of_the_vocabulary_are_refused(ids, gpt2):
    with pytest.raises(DataError, match="web:2: input_ids has"):
        load(gpt2).encode_many(["good", ids], lambda index: f"web:{index + 1}")


def test_tokenizers_with_the_same_ids_have_the_same_hash(gpt2, words):
    assert load(gpt2).tokenizer_hash == load(gpt2, bos="never").tokenizer_hash
    assert load(gpt2).tokenizer_hash != load(words).tokenizer_hash
