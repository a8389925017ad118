"""The processes of a run: one by itself, or as many as torchrun started; the first of them reads, writes and speaks for all.

A process knows its place by the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. One alone
starts nothing of torch.distributed.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ..errors import (
    ConfigurationError,
    InputOutputError,
    OutOfMemoryError,
    PruneError,
    ReportedElsewhere,
    TryAgainError,
    UsageError,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
A_STEP = timedelta(minutes=10)  # within which every process has to come to the same place while they compute
A_READING = timedelta(
    days=7
)  # for which the others wait while the first reads a corpus or writes a checkpoint

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The place of this process, `rank` of `world`. What is `sharded` is spread over all of them, else each has a copy."""

    rank: int = 0
    world: int = 1
    card: int = 0
    sharded: bool = False
    patient: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> str:
        """What `--device` comes to here: of many processes each has a card of its own."""
        if self.world == 1 or not _on_cards(name):
            return name
        if ":" in name:
            raise UsageError(
                f"--device {name} is one card for {self.world} processes", remedy="take --device cuda"
            )
        return f"cuda:{self.card}"

    def first(self, action: Callable[[], Result]) -> Result:
        """What `action` comes to on the first process, on all of them; where it fails there, it fails on all."""
        if self.world == 1:
            return action()
        said: list[Any] = [None, 0]  # the result, and the exit status of a failure
        failure: Exception | None = None
        if self.is_first:
            try:
                said[0] = action()
            except Exception as error:
                said[1], failure = _status(error), error
        dist.broadcast_object_list(said, group=self.patient)
        if failure:
            raise failure
        if said[1]:
            raise ReportedElsewhere(said[1])
        result: Result = said[0]
        return result

    def share(self, blocks: int) -> slice:
        """Which rows of a batch of so many blocks are this process's; the shares differ by one at most."""
        return slice(blocks * self.rank // self.world, blocks * (self.rank + 1) // self.world)

    def largest_share(self, blocks: int) -> int:
        return -(-blocks // self.world)

    def least(self, value: int) -> int:
        """The least of the processes' numbers."""
        if self.world == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.patient)
        return int(found)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the processes' numbers."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def wrap(self, loss: nn.Module, layers: list[nn.Module], device: torch.device) -> nn.Module:
        """A module that computes a loss, made to leave the mean of all processes' gradients wherever it is taken backward."""
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not self.sharded:
            cards = [device] if device.type == "cuda" else None
            return DistributedDataParallel(loss, cards, gradient_as_bucket_view=True)
        mesh = init_device_mesh(device.type, (self.world,))
        for module in (*layers, loss):
            fully_shard(module, mesh=mesh)
        return loss

    def unsummed(self, wrapped: nn.Module | None, more: bool) -> AbstractContextManager[object]:
        """Leave the gradients to each process while there is `more` to add. Sharded ones are summed each time: whole ones may not fit."""
        return wrapped.no_sync() if more and isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors put together from their shards, in the first process's memory; the others take part and have none of them."""
        found = {
            key: self._whole(tensor)
            for key, tensor in {id(tensor): tensor for tensor in tensors.values()}.items()
        }  # tied ones once
        return {name: found[id(tensor)] for name, tensor in tensors.items()} if self.is_first else {}

    def _whole(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        whole = tensor.full_tensor()
        return whole.detach().cpu() if self.is_first else torch.empty(0)


ALONE = Processes()


def part(whole: Tensor, like: Tensor) -> Tensor:
    """This process's share of a tensor that each of them has whole."""
    return (
        distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
        if isinstance(like, DTensor)
        else whole
    )


def number(value: Tensor) -> float:
    """A single value; of a sharded one every process has to ask."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).item()


# From the first word to the last


@contextmanager
def started(device: str, *, sharded: bool = False) -> Iterator[Processes]:
    """The processes that this one is part of, in touch with each other for as long as the block lasts.

    Where several of them fail, the first to fail says why, and the others raise ReportedElsewhere with its status. Raises
    ConfigurationError where they cannot find each other, TryAgainError where one of them has gone.
    """
    rank, world, card = (
        _variable(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if world == 1:
        yield ALONE
        return
    with _ended_by_signals():
        store = _meet(rank, world, "nccl" if _on_cards(device) else "gloo")
    try:
        with _ended_by_signals() if rank else nullcontext():  # the first has a folder to leave in order
            yield Processes(rank, world, card, sharded, dist.new_group(timeout=A_READING, backend="gloo"))
    except ReportedElsewhere:
        raise
    except Exception as error:
        failure = _in_our_words(error, rank)
        if speaker := _speaker(store, rank, _status(failure)):
            raise ReportedElsewhere(speaker) from error
        raise failure from error
    dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise ConfigurationError(
            f"{name} is {os.environ[name]!r} and not a number", remedy="torchrun sets it"
        ) from None


def _on_cards(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have a signal end this process at once: while torch waits for another one, no handler written in Python would be called."""
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


def _meet(rank: int, world: int, backend: str) -> Store:
    """Find the other processes; a store that they share."""
    try:
        store: Store = next(rendezvous("env://", rank, world, timeout=A_STEP))[0]
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=world, timeout=A_STEP
        )
    except (ValueError, RuntimeError) as error:
        fault = f"process {rank} does not find the other {world - 1} ({str(error).splitlines()[0]})"
        raise ConfigurationError(fault, remedy="start them with torchrun") from error
    return store


def _in_our_words(error: Exception, rank: int) -> Exception:
    """What torch says when another process has gone; everything else as it is."""
    lost = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error))
    )
    if not lost or isinstance(error, PruneError):
        return error
    return TryAgainError(
        "another process of the run has gone",
        place=f"process {rank}",
        remedy="--resume goes on from the last checkpoint",
    )


def _status(error: Exception) -> int:
    """The exit status that an error ends in."""
    if isinstance(error, PruneError):
        return error.status
    if isinstance(error, OSError):
        return InputOutputError.status
    return OutOfMemoryError.status if isinstance(error, MemoryError) else PruneError.status


def _speaker(store: Store, rank: int, status: int) -> int:
    """The status of the process that failed first, if it was not this one."""
    try:
        said: str = store.compare_set("failure", "", f"{rank} {status}").decode()
    except RuntimeError:  # the store has gone with the process that kept it: better said twice than never
        return 0
    speaker, found = said.split()
    return 0 if int(speaker) == rank else int(found)
