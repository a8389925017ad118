"""score --prompt-field and --chat: texts given what stands before, as by plain transformers in float64."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import prune_cli
from prune_cli.models import language_model as lm
from prune_cli.records.documents import Conversation, Prompted

from .conftest import Corpus, lines, records
from .small_models import END, byte_level_tokenizer, load, save

CONTEXT = 48
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
UNMARKED = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
PAIRS: Corpus = [
    {"id": 0, "prompt": "Question: who is Lily?\nAnswer:", "text": " A little girl."},
    {"id": 1, "prompt": "", "text": "no prompt"},
    {"id": 2, "prompt": None, "text": "no prompt"},
    {"id": 3, "prompt": f"x{END}", "text": "y"},
    {"id": 4, "prompt": "A long text", "text": " goes beyond the context of the model." * 5},
    {"id": 5, "prompt": "nothing", "text": ""},
]
TALK: Corpus = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello? 日本 "},
    {"role": "assistant", "content": " Hi.\n"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "<|user|>"},
]


def build(path: Path, template: str | None) -> Path:
    torch.manual_seed(1)
    tokenizer = byte_level_tokenizer()
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": roles})
    if template:
        tokenizer.chat_template = template
    shape = {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape)
    return save(transformers.GPT2LMHeadModel(config), path, tokenizer)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("chat"), UNMARKED)


@cache
def double(path: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def plain(path: Path, tokens: list[int], first: int) -> list[float]:
    """The losses of the tokens from `first` on, in windows of the context that do not overlap."""
    losses = []
    for at in range(max(first, 1), len(tokens)):
        end = min(len(tokens) - 1, -(-at // CONTEXT) * CONTEXT)
        start = max(0, end - CONTEXT)
        with torch.inference_mode():
            row = double(path)(input_ids=torch.tensor([tokens[start:end]])).logits[0][at - 1 - start]
        losses.append(float(torch.logsumexp(row, -1) - row[tokens[at]]))
    return losses


def tokens_of(path: Path, text: str | None) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ids: list[int] = tokenizer(text or "", add_special_tokens=False)["input_ids"]
    return ids


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# --- Behind a prompt ---


@pytest.mark.parametrize("bos", ["auto", "never"])
def test_a_text_behind_its_prompt_is_scored_as_by_plain_transformers(bos, here, model):
    options = ("-m", "perplexity", "-m", "instruction_difficulty", "--dtype", "float32", "--bos", bos)
    done = here(
        "score", "--model", model, *options, "--prompt-field", "prompt", "--plain", stdin=lines(PAIRS)
    )
    prefix = tokens_of(model, END) if bos == "auto" else []
    for record, pair in zip(records(done.stdout), PAIRS, strict=True):
        before, text = prefix + tokens_of(model, pair["prompt"]), tokens_of(model, pair["text"])
        losses = plain(model, before + text, len(before))
        alone = plain(model, prefix + text, len(prefix))
        assert record["n_scored"] == len(losses)
        assert record["nll_sum"] == pytest.approx(sum(losses), rel=1e-5)
        if not losses:
            assert record["perplexity"] is record["instruction_difficulty"] is None
            continue
        assert record["perplexity"] == pytest.approx(math.exp(mean(losses)), rel=1e-4)
        if before:
            assert record["n_bytes"] == len(pair["text"].encode())
        if alone:
            expected = math.exp(mean(losses) - mean(alone))
            assert record["instruction_difficulty"] == pytest.approx(expected, rel=1e-4)


def test_without_a_prompt_the_score_is_the_ordinary_one(here, model):
    options = ("score", "--model", model, "--plain", "--dtype", "float32")
    behind = records(here(*options, "--prompt-field", "prompt", stdin=lines(PAIRS[1:3])).stdout)
    assert behind == records(here(*options, stdin=lines(PAIRS[1:3])).stdout)


def test_a_prompt_longer_than_the_context_leaves_no_score_and_is_counted(here, model, tmp_path):
    # As long as the context, BOS included, is not too long.
    fits = {"prompt": "x" * (CONTEXT - 1), "text": "ab"}
    unfit = {"prompt": "x" * CONTEXT, "text": "ab"}
    options = ("--prompt-field", "prompt", "--summary", tmp_path / "summary", "--plain")
    done = here("score", "--model", model, *options, stdin=lines([fits, unfit]))
    first, second = records(done.stdout)
    assert first["n_scored"] == 2
    assert (second["perplexity"], second["nll_sum"], second["n_scored"], second["n_bytes"]) == (None, 0, 0, 0)
    assert json.loads((tmp_path / "summary").read_bytes())["nulls"] == 1
    assert b"1 records have no score: their prompt is longer than the model's context" in done.stderr


def test_a_block_behind_a_prompt_is_scored_from_its_first_token(model):
    scorer = load(model)
    [document] = scorer.encode_many([Prompted("ab", [5, 6, 7])])
    assert document.tokens.tolist() == [*tokens_of(model, "ab"), 5, 6, 7]
    assert (document.n_scored, document.n_bytes) == (3, 3)
    [statistics] = scorer.statistics([document])
    assert statistics["nll"] == pytest.approx(plain(model, document.tokens.tolist(), 2), rel=1e-4)


def test_what_else_is_in_a_batch_and_windows_of_prompts_change_nothing(model):
    scorer = load(model, batch_tokens=1000)
    contents: list[Any] = [Prompted("word " * size, "text " * (size % 7)) for size in range(0, 12, 2)]
    contents += [Conversation([*TALK * 3]), "plain", Conversation(TALK)]
    together = scorer.statistics(scorer.encode_many(contents))
    for content, expected in zip(contents, together, strict=True):
        [alone] = load(model, batch_tokens=1).statistics(scorer.encode_many([content]))
        assert alone["nll"] == pytest.approx(expected["nll"], rel=1e-4, abs=1e-5)


def test_an_ensemble_and_a_second_model_see_the_same_prompt(here, model, tmp_path):
    options = ("-m", "instruction_difficulty", "-m", "excess_loss", "--model", model, "--against", model)
    done = here(
        "score", *options, "--model", model, "--prompt-field", "prompt", "--plain", stdin=lines(PAIRS[:1])
    )
    [record] = records(done.stdout)
    [own] = prune_cli.score(
        PAIRS[:1], model=[model], metric="instruction_difficulty", prompt_field="prompt", dtype="auto"
    )
    assert record["excess_loss"] == 0
    assert record["instruction_difficulty"] == pytest.approx(own["instruction_difficulty"])


# --- Conversations ---


def masks(path: Path, *talks: Corpus) -> list[tuple[list[int], list[int]]]:
    """Tokens and marks of transformers, by the marks of the template."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    encoded: list[Any] = [
        tokenizer.apply_chat_template(
            talk, chat_template=TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
        )
        for talk in talks
    ]
    return [(each["input_ids"], each["assistant_masks"]) for each in encoded]


@pytest.mark.parametrize("template", [TEMPLATE, UNMARKED])
def test_the_assistants_tokens_are_those_that_transformers_marks(template, model, tmp_path):
    path = model if template is UNMARKED else build(tmp_path, template)
    talks = [TALK, TALK[1:3], TALK[:2], TALK[2:], [TALK[1], TALK[2], TALK[2]]]
    documents = load(path).encode_many([Conversation(talk) for talk in talks])
    for document, (ids, marks) in zip(documents, masks(model, *talks), strict=True):
        assert document.tokens.tolist() == ids
        assert document.is_scored is not None
        assert document.is_scored.astype(int).tolist() == marks


def test_turns_of_the_assistant_are_scored_as_by_plain_transformers(here, model):
    talks = [TALK[1:3], TALK[1:], TALK[:2]]
    options = ("-m", "perplexity", "-m", "instruction_difficulty", "--dtype", "float32", "--plain")
    conversations = [{"messages": talk} for talk in talks]
    done = here("score", "--chat", "--model", model, *options, stdin=lines(conversations))
    for record, (ids, marks) in zip(records(done.stdout), masks(model, *talks), strict=True):
        losses = [0.0, *plain(model, ids, 0)]
        scored = [loss for loss, mark in zip(losses, marks, strict=True) if mark]
        assert record["n_scored"] == len(scored) == sum(marks)
        assert record["nll_sum"] == pytest.approx(sum(scored), rel=1e-5)
        if not scored:
            assert record["perplexity"] is None
            continue
        own = [token for token, mark in zip(ids, marks, strict=True) if mark]
        alone = plain(model, tokens_of(model, END) + own, 1)
        expected = math.exp(mean(scored) - mean(alone))
        assert record["instruction_difficulty"] == pytest.approx(expected, rel=1e-4)
    # Two answers, with the token that ends each.
    assert records(done.stdout)[0]["n_bytes"] == len(" Hi.\n")


def test_conversations_in_python_are_scored_as_by_the_command(here, model):
    done = here("score", "--chat", "--model", model, "--plain", stdin=lines([{"messages": TALK}]))
    assert [*prune_cli.score([{"messages": TALK}], chat=True, model=[model])] == records(done.stdout)


def test_another_field_may_hold_the_messages_and_metrics_of_texts_read_the_answers(here, model, tmp_path):
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "Hi user"}]))
    talk = [TALK[1], {"role": "assistant", "content": "Hi"}, {"role": "assistant", "content": "user"}]
    options = ("-m", "overlap", "--held-out", tmp_path / "test.jsonl", "--ngram", 2, "--plain")
    done = here("score", "--chat", *options, stdin=lines([{"messages": talk}]))
    assert records(done.stdout)[0]["overlap"] == 1


def test_the_head_says_what_was_scored(here, model, tmp_path):
    here("score", "--chat", "--model", model, "-o", tmp_path / "a.zst", stdin=lines([{"messages": TALK}]))
    here("score", "--prompt-field", "prompt", "--model", model, "-o", tmp_path / "b.zst", stdin=lines(PAIRS))
    assert all(name in (tmp_path / "a.zst").read_bytes() for name in (b'"chat":true', b'"chat_template":"'))
    assert b'"prompt_field":"prompt"' in (tmp_path / "b.zst").read_bytes()


BROKEN = "{{ messages | length }}" + UNMARKED
REFUSING = "{{ raise_exception('roles must alternate') }}"


@pytest.mark.parametrize(
    ("template", "record", "status", "fault"),
    [
        (None, {"messages": TALK}, 78, b"its tokenizer has no chat template; name a model with"),
        (BROKEN, {"messages": TALK}, 78, b"its chat template does not write a conversation turn by turn"),
        (REFUSING, {"messages": TALK}, 65, b":1: the chat template refuses its messages: roles must alter"),
        (UNMARKED, {"messages": [{"role": "user"}]}, 65, b":1: message 1 has no `role` or no `content`"),
        (UNMARKED, {"messages": "Hello"}, 65, b'`messages` is a string ("Hello"), not a list of messages'),
        (UNMARKED, {"text": "Hello"}, 65, b"no field `messages`"),
    ],
)
def test_a_conversation_that_cannot_be_scored_is_refused(template, record, status, fault, here, tmp_path):
    path = build(tmp_path, template)
    done = here("score", "--chat", "--model", path, "--plain", stdin=lines([record]), status=status)
    assert fault in done.stderr


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"text": "a"}, b"no field `prompt`; the record has text"),
        ({"text": "a", "prompt": 5}, b"`prompt` is a number (5), not a string"),
    ],
)
def test_a_record_without_a_prompt_is_refused_or_skipped(record, fault, here, model):
    options = ("score", "--prompt-field", "prompt", "--model", model, "--plain")
    assert fault in here(*options, stdin=lines([record]), status=65).stderr
    done = here(*options, "--skip-bad", stdin=lines([record, PAIRS[0]]), status=3)
    assert [record["id"] for record in records(done.stdout)] == [0]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["-m", "instruction_difficulty"], b"name the prompt with --prompt-field FIELD, or give --chat"),
        (["-m", "memorization", "--chat"], b"memorization continues what a model was trained on"),
        (["--prompt-field", "text"], b"`text` cannot be both prompt and text"),
        (["--prompt-field", "a", "--chat"], b"--prompt-field has no effect: --chat"),
        (["--prompt-field", "a", "-m", "random"], b"--prompt-field has no effect: no chosen metric uses"),
    ],
)
def test_prompts_that_are_of_no_use_are_usage_errors(options, fault, here):
    assert fault in here("score", *options, stdin=lines(PAIRS), status=2).stderr


def test_one_tokenizer_may_have_two_templates_but_not_in_one_run(here, model, tmp_path):
    other = build(tmp_path, UNMARKED.replace("\n", " "))
    options = ("--chat", "-m", "excess_loss", "--model", model, "--against", other)
    done = here("score", *options, stdin=lines([{"messages": TALK}]), status=78)
    assert b"its chat template differs from that of" in done.stderr
    assert isinstance(lm.chat_template(str(model)), str)
