"""A resumed run does not go on from damaged files: it makes them again, or names them."""

import json
import logging
import shutil

import numpy as np
import pytest

from prune_cli.errors import DataError
from prune_cli.storage import checksums
from prune_cli.training import token_file

from ..training import Killed, documents, furnished, killed_at, metrics, settings, train, weights


def plan(home):
    return settings(home, tokenizer=None, train_tokenizer=300, steps=8, save_every=2, keep=9)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A whole run of 8 steps in `whole`, and the same run killed at step 5 in `killed`."""
    home = furnished(tmp_path_factory.mktemp("runs"))
    train(documents(), plan(home), home / "whole", source="the same")
    with pytest.raises(Killed):
        train(documents(), plan(home), home / "killed", source="the same", report=killed_at(5))
    return home


@pytest.fixture
def run(home, tmp_path):
    """A copy of the killed run, to damage: the files in `run.partial`."""
    shutil.copytree(home / "killed.partial", tmp_path / "run.partial")
    return tmp_path / "run.partial"


def resumed(home, run):
    """The weights of the run after it was resumed."""
    target = run.with_name(run.name.removesuffix(".partial"))
    train(documents(), plan(home), target, source="the same", resume=True)
    return weights(target)


def damage(path, at=0.5):
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def test_a_damaged_token_file_is_named_and_then_made_again(home, run):
    tokens = np.memmap(run / "tokens.bin", np.uint16, "r+")
    tokens[100:20_100] = 7
    tokens.flush()
    with pytest.raises(DataError, match=r"run\.partial/tokens\.bin: is damaged; run it again with --resume"):
        resumed(home, run)
    assert resumed(home, run) == weights(home / "whole")


@pytest.mark.parametrize("name", ["tokens.npy", "hashes.npy", "sums.npy", "tokens.json"])
def test_what_belongs_to_a_token_file_is_made_again(home, run, name, caplog):
    damage(run / name)
    assert resumed(home, run) == weights(home / "whole")
    if name != "tokens.json":
        assert f"{run / name}: is damaged; the documents are tokenized again" in caplog.text


@pytest.mark.parametrize("at", [0.01, 0.3, 0.99])
def test_damaged_orders_are_made_again(home, run, at, caplog):
    orders = [*run.glob("order-*.npy")]
    assert len(orders) == 2
    for order in orders:
        damage(order, at)
    assert resumed(home, run) == weights(home / "whole")
    assert all(f"{order}: is damaged, and is made again" in caplog.text for order in orders)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(home, run, caplog):
    damage(run / "step-4" / "optimizer.safetensors", 0.9)
    damage(run / "step-2" / "documents.npy")
    assert resumed(home, run) == weights(home / "whole")
    assert caplog.text.count("is damaged: trying the checkpoint before it") == 2


def test_copies_of_checkpoints_are_left_alone(home, run):
    """A copy made by hand was taken for a checkpoint by the start of its name, and stopped the run."""
    for name in ("step-4.bak", "step-best", "step-"):
        shutil.copytree(run / "step-2", run / name)
    assert resumed(home, run) == weights(home / "whole")
    assert (run.with_name("run") / "step-best" / "optimizer.safetensors").exists()


def test_a_run_that_was_moved_is_resumed(home, run):
    moved = run.with_name("moved.partial")
    run.rename(moved)
    assert resumed(home, moved) == weights(home / "whole")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"run": 1}', b"\xff", None])
def test_a_run_that_lost_its_description_is_not_resumed(home, run, content):
    (run / "train.json").unlink()
    if content is not None:
        (run / "train.json").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.json: is (damaged|missing); start over with -f"):
        resumed(home, run)


def test_the_trained_tokenizer_of_a_run_is_checked(home, run):
    damage(run / "tokenizer" / "tokenizer.json")
    with pytest.raises(DataError, match=r"run\.partial/tokenizer: is damaged; start over with -f"):
        resumed(home, run)


def test_damaged_metrics_are_named_and_can_be_given_up(home, run):
    lines = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(lines.replace(b'"loss": 5', b'"loss": 4', 1))
    with pytest.raises(DataError, match=r"metrics\.jsonl: does not hold the lines of the first 4 steps"):
        resumed(home, run)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(Killed):
        train(
            documents(), plan(home), run.with_name("run"), source="the same", resume=True, report=killed_at(7)
        )
    assert resumed(home, run) == weights(home / "whole")
    assert [line["step"] for line in metrics(run.with_name("run"))] == [5, 6, 7, 8]


def test_a_run_of_the_version_before_resumes_with_a_message(home, run, caplog):
    """Version 0.1.0 wrote no checksums, and orders whose names have none."""
    (run / "sums.npy").unlink()
    (run / "tokenizer" / "state.json").unlink()
    manifest = json.loads((run / "tokens.json").read_bytes())
    del manifest["checksums"], manifest["own"]
    (run / "tokens.json").write_text(json.dumps(manifest))
    for order in run.glob("order-*.npy"):
        order.rename(order.with_name(f"{order.name.split('.')[0]}.npy"))
    for step in (2, 4):
        seal = json.loads((run / f"step-{step}" / "state.json").read_bytes())
        del seal["metrics"]
        (run / f"step-{step}" / "state.json").write_text(json.dumps(seal))
    caplog.set_level(logging.WARNING)
    assert resumed(home, run) == weights(home / "whole")
    assert "its token file has no checksums, so that damage would not be noticed" in caplog.text
    assert not [*run.with_name("run").glob("order-*")]


def test_each_piece_is_checked_before_it_is_read(tmp_path):
    """Pieces of 16 KiB: of the first three only the middle one is damaged."""
    ids = [[number % 300 for number in range(8192)] for _ in range(3)]
    manifest = token_file.pack(ids, lambda texts: [], tmp_path, vocabulary=300, separator=0)
    with (tmp_path / "tokens.bin").open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff")
    blocks = token_file.Blocks(tmp_path, manifest, 8192, seed=0)
    starts = [int(blocks._positions(index)[0]) for index in range(3)]
    for index, start in enumerate(starts):
        if start == 8192:
            with pytest.raises(DataError, match="is damaged"):
                blocks[index]
        else:
            assert blocks[index].tolist() == ids[0]


@pytest.mark.parametrize("sizes", [[0], [1], [1 << 14], [(1 << 14) + 1, 5, 1 << 15], [100] * 500])
def test_sums_of_pieces_are_those_of_zlib(sizes):
    from zlib import crc32

    parts = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    sums = checksums.PieceSums()
    for part in parts:
        sums.add(part)
    whole = b"".join(parts)
    assert sums.sums().tolist() == [crc32(whole[at : at + 16384]) for at in range(0, len(whole), 16384)]
