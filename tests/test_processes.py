"""train in several processes: the losses of one process, checkpoints for any number, one end for all."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, GPT2Config

from prune_cli.errors import UsageError
from prune_cli.models import cpu_kernels
from prune_cli.models.text.loading import train_tokenizer
from prune_cli.settings.train import Training
from prune_cli.training.distributed import Processes
from prune_cli.training.model import checkpoint_activations, load_model, save_tokenizer, summed_loss
from prune_cli.training.recipe import PRESETS
from prune_cli.training.step import adamw, fitting_tokens, micro_batches

from . import warm
from .conftest import PATIENCE, ROOT, lines, scored, status_of
from .training import train

# A batch of nine blocks does not split evenly.
SHAPE = "layers = 2\nwidth = 32\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 288\n"
GPU_MEMORY = 79 << 30  # bytes of what is sold as 80 GB


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, a configuration, a tokenizer and the run of one process."""
    home = tmp_path_factory.mktemp("processes")
    (home / "shape.toml").write_text(SHAPE)
    (home / "corpus.jsonl").write_bytes(lines(scored(200)))
    texts = [record["text"] for record in scored(200)]
    save_tokenizer(train_tokenizer(texts, 290), home / "tokenizer")
    assert status_of(*arguments(home, home / "one")) == 0
    return home


def arguments(home, run, *more):
    shape = ("--config", home / "shape.toml", "--tokenizer", home / "tokenizer", "--dtype", "float32")
    return ("train", *shape, "--steps", 60, "--save-every", 10, "-o", run, *more, home / "corpus.jsonl")


def begun(*given):
    """Two processes that find each other by the variables which torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    both = []
    for rank in range(2):
        variables = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        said = tempfile.TemporaryFile()
        both.append((warm.Started(given, stderr=said, environment=variables).go(), said))
    return both


def ended(both):
    """The exit status of each process, and what it said."""
    statuses = [process.wait() for process, _ in both]
    messages = []
    for _, said in both:
        with said:
            said.seek(0)
            messages.append(said.read().decode())
    return statuses, messages


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(run):
    found = lines_of(run)
    return [line["loss"] for line in found], [line["norm"] for line in found]


def assert_same(run, other):
    """The losses and norms of two runs to 1e-5, and the same files left."""
    for ours, theirs in zip(numbers(run), numbers(other), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


class Stopped(BaseException):
    pass


def stop_at_25(step, values):
    if step == 25:
        raise Stopped


def wait_for(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def test_two_processes_give_the_numbers_of_one(home, tmp_path):
    assert ended(begun(*arguments(home, tmp_path / "two"))) == ([0, 0], ["", ""])
    assert_same(tmp_path / "two", home / "one")
    assert json.loads((tmp_path / "two" / "train.json").read_text())["machine"]["processes"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"two"}


ADAPTIVE = ("--adapt", "infobatch", "--adapt-frac", "0.4")


def assert_same_passes(run, other):
    kept, of_other = ([line.get("kept_blocks") for line in lines_of(each)] for each in (run, other))
    assert kept == of_other
    assert len([count for count in kept if count]) > 2


def test_two_processes_adapt_as_one(home, tmp_path, here):
    """Blocks are chosen by the losses of both."""
    here(*arguments(home, tmp_path / "one", *ADAPTIVE))
    assert ended(begun(*arguments(home, tmp_path / "two", *ADAPTIVE))) == ([0, 0], ["", ""])
    assert_same(tmp_path / "two", tmp_path / "one")
    assert_same_passes(tmp_path / "two", tmp_path / "one")


@pytest.mark.sweep
def test_two_sharded_processes_resume_the_passes_of_one(home, tmp_path, here):
    here(*arguments(home, tmp_path / "one", *ADAPTIVE))
    started = warm.Started(arguments(home, tmp_path / "run", *ADAPTIVE)).go()
    wait_for(tmp_path / "run.partial" / "step-30")
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    resuming = begun(*arguments(home, tmp_path / "run", *ADAPTIVE, "--resume", "--fsdp"))
    assert ended(resuming)[0] == [0, 0]
    assert_same(tmp_path / "run", tmp_path / "one")
    assert_same_passes(tmp_path / "run", tmp_path / "one")


def test_after_a_kill_the_other_process_ends_and_one_process_resumes(home, tmp_path, here):
    both = begun(*arguments(home, tmp_path / "run", "--fsdp"))
    wait_for(tmp_path / "run.partial" / "step-10")
    os.kill(both[1][0].pid, signal.SIGKILL)
    status, said = ended(both)
    assert status == [75, -signal.SIGKILL]
    assert said[0] == (
        "prune-cli train: process 0: another process of the run ended; "
        "--resume continues from the last checkpoint\n"
    )
    went_on = here(*arguments(home, tmp_path / "run", "--resume"))
    assert b"started with processes 2, resumed with 1: the last digits may differ" in went_on.stderr
    assert_same(tmp_path / "run", home / "one")


def test_two_sharded_processes_resume_a_run_of_one(home, tmp_path):
    recipe = {
        "config": home / "shape.toml",
        "tokenizer": home / "tokenizer",
        "dtype": "float32",
        "steps": 60,
        "save_every": 10,
    }
    with pytest.raises(Stopped):
        train(
            (record["text"] for record in scored(200)),
            Training(**recipe),
            tmp_path / "run",
            report=stop_at_25,
        )
    status, said = ended(
        begun(*arguments(home, tmp_path / "run", "--resume", "--fsdp", "--checkpoint-activations"))
    )
    assert status == [0, 0], said
    assert "started with processes 1, resumed with 2" in said[0]
    assert said[1] == ""
    assert_same(tmp_path / "run", home / "one")


@pytest.fixture
def damaged(home, tmp_path):
    """Training on a corpus whose last record is none."""
    (tmp_path / "corpus.jsonl").write_bytes(lines(scored(20)) + b"oops\n")
    return [*arguments(home, tmp_path / "run")[:-1], tmp_path / "corpus.jsonl"]


def test_a_damaged_record_ends_all_processes_with_one_message(damaged, tmp_path):
    status, said = ended(begun(*damaged))
    assert status == [65, 65]
    assert "".join(said).count("prune-cli train: ") == "".join(said).count("corpus.jsonl:21: not JSON") == 1
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.sweep
def test_the_launcher_reports_the_status_of_a_damaged_record(damaged, tmp_path):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "prune_cli",
    ]
    done = subprocess.run(
        [*launcher, *map(str, damaged)], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stderr.count("prune-cli train: ") == done.stderr.count("corpus.jsonl:21: not JSON") == 1
    assert "exitcode  : 65" in done.stderr
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_the_ranks_divide_the_batch_into_equally_many_micro_batches(world, micro_batch):
    ranks = [Processes(rank, world) for rank in range(world)]
    batch = torch.arange(10)[:, None].expand(-1, 5)
    parts = [batch[processes.local_part(10)] for processes in ranks]
    assert [row for part in parts for row in part[:, 0].tolist()] == list(range(10))
    split = [
        micro_batches(processes, part, 10, micro_batch) for processes, part in zip(ranks, parts, strict=True)
    ]
    assert len({len(of_rank) for of_rank in split}) == 1
    weights = [len(blocks) * 4 * scale for of_rank in split for blocks, scale, _ in of_rank]
    assert sum(weights) / world == pytest.approx(1)


def test_each_process_has_a_gpu_of_its_own():
    assert Processes(1, 2, 1).device("cpu") == "cpu"
    assert Processes(1, 2, 1).device("cuda") == "cuda:1"
    assert Processes().device("cuda:3") == "cuda:3"
    with pytest.raises(UsageError, match="cuda:3 is one GPU for 2 processes; use --device cuda"):
        Processes(1, 2, 1).device("cuda:3")


def test_recomputed_activations_give_the_same_gradients(home):
    found = []
    for checkpointed in (False, True):
        model = load_model(home / "one")
        if checkpointed:
            checkpoint_activations(model)
        summed_loss(model, torch.arange(64).view(2, 32), torch.float32, 1.0)[0].backward()
        found.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def peak(layers, micro_batch, checkpointed):
    """Peak memory in bytes, by torch's tracker, of a step of the 1.5b preset with only `layers` layers."""
    shape = {name: int(value) for name, value in PRESETS["1.5b"].items()}
    sizes = {
        "n_positions": shape["context"],
        "n_embd": shape["width"],
        "n_head": shape["heads"],
        "vocab_size": shape["vocabulary"],
    }
    with FakeTensorMode():  # tensors without their numbers
        model = AutoModelForCausalLM.from_config(
            GPT2Config(**sizes, n_layer=layers), dtype=torch.float32
        ).eval()
        if checkpointed:
            checkpoint_activations(model)
        optimizer, tracker = adamw(model), MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):  # there are no moments in the first step until it is over
                tracker.reset_mod_stats()
                summed_loss(
                    model, torch.zeros(micro_batch, shape["context"], dtype=torch.int64), torch.bfloat16, 1.0
                )[0].backward()
                optimizer.step()
                optimizer.zero_grad()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_largest_preset_fits_on_one_gpu(checkpointed, monkeypatch):
    """Simulated, not run: every layer takes as much memory, so one and two predict 48.

    All 48, simulated: 29.1 GB with one block at a time, and 33.4 GB with 16 and checkpointed activations.
    """
    # A GPU puts all logits of a chunk of the head through the softmax at once; a CPU ten rows at a time,
    # which would be 50,000 operations to simulate.
    monkeypatch.setattr(cpu_kernels, "SOFTMAX_ELEMENTS", 1 << 30)
    config = GPT2Config(n_layer=48, n_embd=1600)
    rows = fitting_tokens(GPU_MEMORY, 1_560_758_400, 1, config, torch.bfloat16, checkpointed) // 2048
    assert rows >= 1
    one, two = (peak(some, rows, checkpointed) for some in (1, 2))
    assert one + (two - one) * 47 < 0.9 * GPU_MEMORY
