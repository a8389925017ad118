"""The token file: what goes in comes out as blocks, in an order that nothing but content and seed decides."""

import random
import tracemalloc

import numpy as np
import pytest

from prune_cli.errors import DataError
from prune_cli.training import token_file

CONTEXT, END = 16, 256
GOLDEN = ["097|062|001|068|", "073|045|074|070|"]


def encode(texts):
    """A byte a token."""
    return [list(text.encode()) for text in texts]


def documents(count=100, seed=1):
    dice = random.Random(seed)
    return ["".join(dice.choices("abcdefgh", k=dice.randint(1, 60))) for _ in range(count)]


def blocks(folder, documents, seed=0, context=CONTEXT, vocabulary=257):
    folder.mkdir(exist_ok=True)
    manifest = token_file.pack(documents, encode, folder, vocabulary=vocabulary, separator=END)
    return token_file.Blocks(folder, manifest, context, seed)


def text(block):
    return bytes(ord("|") if token == END else token for token in block).decode()


def test_blocks_are_the_documents_one_after_the_other(tmp_path):
    corpus = documents()
    packed = blocks(tmp_path, corpus)
    stream = "".join(text(packed[index]) for index in range(packed.count))
    total = sum(len(document) + 1 for document in corpus)
    assert (packed.count, len(stream)) == (total // CONTEXT, total // CONTEXT * CONTEXT)
    found = stream.split("|")
    assert set(found[:-1]) <= set(corpus)
    assert len(found) > 90
    assert found[:-1] != corpus[: len(found) - 1]


def test_the_order_of_arrival_changes_nothing(tmp_path):
    corpus = [*documents(), *documents(20)]
    there, back = blocks(tmp_path / "a", corpus), blocks(tmp_path / "b", reversed(corpus))
    assert all(np.array_equal(there.batch(step, 3), back.batch(step, 3)) for step in range(200))


def test_the_order_never_changes_between_versions(tmp_path):
    """Golden: a run is resumed and repeated by other versions of everything."""
    packed = blocks(tmp_path, [f"{number:03}" for number in range(100)], seed=7)
    assert [text(block) for block in packed.batch(0, 2)] == GOLDEN


def test_each_epoch_has_every_block_once_in_another_order(tmp_path):
    packed = blocks(tmp_path, documents())
    size = packed.count
    passes = [[block.tobytes() for block in packed.batch(turn, size)] for turn in range(3)]
    assert [sorted(each) for each in passes] == [sorted(packed[index].tobytes() for index in range(size))] * 3
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_a_batch_may_span_epochs_and_exceed_the_data(tmp_path):
    packed = blocks(tmp_path, documents(10))
    joined = np.concatenate([packed.batch(step, 1) for step in range(14)])
    assert np.array_equal(np.concatenate([packed.batch(step, 7) for step in range(2)]), joined)
    assert packed.batch(0, 5 * packed.count).shape == (5 * packed.count, CONTEXT)


def test_seeds_give_other_orders(tmp_path):
    first, second = (blocks(tmp_path, documents(), seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.batch(0, 8), second.batch(0, 8))


def test_equal_documents_are_not_kept_together(tmp_path):
    packed = blocks(tmp_path, [*["same"] * 50, *(f"text {number}" for number in range(950))], context=7)
    stream = "".join(text(packed[index]) for index in range(packed.count))
    assert stream.count("same|") == 50
    assert stream.count("same|same|") < 8


def test_lists_of_ids_are_used_unchanged(tmp_path):
    packed = blocks(tmp_path, [[1] * CONTEXT, [2] * CONTEXT], vocabulary=100_000)
    assert {tuple(packed[index]) for index in range(2)} == {(1,) * CONTEXT, (2,) * CONTEXT}
    assert packed.tokens.dtype == np.uint32


def test_packed_blocks_stay_whole_among_documents_of_any_length(tmp_path):
    whole = [[number] * CONTEXT * (1 + number % 2) for number in range(50)]
    packed = blocks(tmp_path, [*documents(20), *whole, [60] * 5])
    found = [packed[index] for index in range(packed.count)]
    assert sum(len(set(block)) == 1 for block in found) == 75
    assert (
        packed.count == (sum(len(document) + 1 for document in documents(20)) + 75 * CONTEXT + 5) // CONTEXT
    )


def test_a_batch_names_its_documents_by_number(tmp_path):
    packed = blocks(tmp_path, [[number] * (number % 5) for number in range(1, 200)])
    for step in range(4):
        assert packed.documents(packed.indices(step, 3)) == sorted(
            set(packed.batch(step, 3).flatten().tolist())
        )


def test_orders_are_cached(tmp_path, monkeypatch):
    first = blocks(tmp_path, documents())
    batch = first.batch(5, 3)
    monkeypatch.setattr(token_file, "document_order", lambda *_: pytest.fail("ordered again"))
    monkeypatch.setattr(token_file, "block_order", lambda *_: pytest.fail("ordered again"))
    assert np.array_equal(token_file.Blocks(tmp_path, first.manifest, CONTEXT, 0).batch(5, 3), batch)
    token_file.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [-1, 257, 1 << 70])
def test_a_token_id_outside_the_vocabulary_is_an_error(tmp_path, wrong):
    with pytest.raises(DataError, match=f"document 2 has token {wrong}, outside a vocabulary of 257"):
        blocks(tmp_path, ["text", [1, wrong]])


def test_empty_documents_are_left_out(tmp_path):
    manifest = token_file.pack(
        ["", "ab", [], [1]], encode, tmp_path, vocabulary=257, separator=END, source="here"
    )
    assert (manifest.documents, manifest.tokens, manifest.source) == (2, 4, "here")
    assert (
        manifest.content
        == token_file.pack([[1], "ab"], encode, tmp_path, vocabulary=257, separator=END).content
    )
    manifest = token_file.pack(
        ["", "ab", [], [1]], encode, tmp_path, vocabulary=257, separator=END, source="here"
    )
    assert token_file.find(tmp_path) == manifest
    assert len(token_file.document_hashes(tmp_path)) == 2
    assert token_file.content_hash("ab") in token_file.document_hashes(tmp_path)


def test_an_unfinished_token_file_is_not_used(tmp_path):
    token_file.pack(["text"], encode, tmp_path, vocabulary=257, separator=END)
    with (tmp_path / "tokens.bin").open("ab") as file:
        file.write(b"x")
    assert token_file.find(tmp_path) is None
    (tmp_path / "tokens.json").write_bytes(b'{"docu')
    assert token_file.find(tmp_path) is None


def test_spooled_documents_are_read_again(tmp_path):
    corpus = ["one\ntwo", [3, 4], "\u2028 five"]
    assert (
        list(token_file.write_copy(corpus, tmp_path / "copy"))
        == list(token_file.read_copy(tmp_path / "copy"))
        == corpus
    )


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "CHARACTERS", 10_000)
    texts = (chr(97 + number % 26) * 10_000 for number in range(500))
    tracemalloc.start()
    token_file.pack(texts, encode, tmp_path, vocabulary=257, separator=END)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 < (tmp_path / "tokens.bin").stat().st_size
