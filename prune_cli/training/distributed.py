"""The processes of a training run: a single one, or as many as torchrun started.

Rank 0 reads the documents, writes the run and its messages; the other ranks only compute. A process knows its
place by the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. A single
process starts nothing of torch.distributed, so that it needs no free port.

All ranks have to call the collective methods of `Processes` (`on_rank_zero`, `all_reduce_min`,
`all_reduce_sum`, `gather`) in the same order: a rank that leaves one out makes the others wait until the
timeout.
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
    ran_out_of_memory,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# While all ranks compute they are minutes apart at most, ...
STEP_TIMEOUT = timedelta(minutes=10)
# ... but they wait for days while rank 0 tokenizes a large corpus: these waits have a group of their own.
CONTROL_TIMEOUT = timedelta(days=7)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The place of this process: `rank` of `world`, and `local_rank` among the processes of its machine.

    With `sharded` each rank holds a part of the weights, gradients and moments (FSDP), else a full copy of
    them (DDP). `control_group` is for waits that may take long; it always works on the CPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    sharded: bool = False
    control_group: dist.ProcessGroup | None = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process reads and writes for all."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The value of --device for this process: of several, each has a GPU of its own.

        Raises UsageError if one GPU is named for several processes.
        """
        if self.world == 1 or not _uses_gpu(name):
            return name
        if ":" in name:
            fault = f"--device {name} is one GPU for {self.world} processes"
            raise UsageError(fault, remedy="use --device cuda")
        return f"cuda:{self.local_rank}"

    def on_rank_zero(self, action: Callable[[], Result]) -> Result:
        """Call `action` on rank 0 and return its result on all ranks. If it fails, it fails on all ranks.

        The result is pickled, so it must not be large. Ranks above 0 raise ReportedElsewhere.
        """
        if self.world == 1:
            return action()
        message: list[Any] = [None, 0]  # the result, and the exit status of a failure
        failure: Exception | None = None
        if self.is_rank_zero:
            try:
                message[0] = action()
            except Exception as error:
                message[1] = _status(error)
                failure = error
        # Also after a failure: the other ranks are waiting here.
        dist.broadcast_object_list(message, group=self.control_group)
        if failure:
            raise failure
        if message[1]:
            raise ReportedElsewhere(message[1])
        result: Result = message[0]
        return result

    def local_part(self, count: int) -> slice:
        """The part of `count` blocks that this rank computes. Sizes differ by one at most."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def largest_part(self, count: int) -> int:
        """The number of blocks of the rank that computes the most of them."""
        return -(-count // self.world)

    def all_reduce_min(self, value: int) -> int:
        """The minimum over all ranks."""
        if self.world == 1:
            return value
        minimum = torch.tensor(value)
        dist.all_reduce(minimum, dist.ReduceOp.MIN, group=self.control_group)
        return int(minimum)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wrap(self, loss: nn.Module, layers: list[nn.Module], device: torch.device) -> nn.Module:
        """Wrap a module that computes a loss so that `backward` leaves the mean of the gradients of all
        ranks.
        """
        if device.type == "cuda":
            # NCCL takes the current device, not that of the tensors: without this all ranks would use GPU 0.
            torch.cuda.set_device(device)
        if not self.sharded:
            devices = [device] if device.type == "cuda" else None
            return DistributedDataParallel(loss, devices, gradient_as_bucket_view=True)
        mesh = init_device_mesh(device.type, (self.world,))
        # Layer by layer first, the whole last: then only one layer at a time is gathered.
        for module in (*layers, loss):
            fully_shard(module, mesh=mesh)
        return loss

    def no_sync(self, wrapped: nn.Module | None, *, is_last: bool) -> AbstractContextManager[object]:
        """Keep gradients local until the last micro-batch: one all-reduce per step is enough for DDP.

        FSDP reduces them in each micro-batch, because unsharded gradients may not fit in memory.
        """
        if not is_last and isinstance(wrapped, DistributedDataParallel):
            return wrapped.no_sync()
        return nullcontext()

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Assemble sharded tensors on rank 0, in CPU memory; tensors that are whole stay where they are.

        The other ranks take part and get an empty dict.
        """
        # Tied tensors appear under several names; by identity they are gathered once, and stay tied.
        distinct = {id(tensor): tensor for tensor in tensors.values()}
        gathered = {key: self._gather(tensor) for key, tensor in distinct.items()}
        if not self.is_rank_zero:
            return {}
        return {name: gathered[id(tensor)] for name, tensor in tensors.items()}

    def _gather(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        full = tensor.full_tensor()  # a collective call: on all ranks, whoever needs the result
        return full.detach().cpu() if self.is_rank_zero else torch.empty(0)


SINGLE = Processes()


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The shard of a full `tensor` that belongs to the shard `parameter`; `tensor` itself if nothing is
    sharded.
    """
    if not isinstance(parameter, DTensor):
        return tensor
    # Every rank has read the same full tensor from a checkpoint, so none has to send it.
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def scalar(value: Tensor) -> float:
    """The single element of a tensor. If it is sharded, all ranks have to call this."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).item()


# From the first message between the processes to the last


@contextmanager
def join(device: str, *, sharded: bool = False) -> Iterator[Processes]:
    """Connect this process to the others of its run for the length of the block.

    If several processes fail, the first of them raises its own error and the others raise ReportedElsewhere
    with its status. Raises ConfigurationError if the processes cannot connect, and TryAgainError if one of
    them ended.
    """
    rank = _variable("RANK", 0)
    world = _variable("WORLD_SIZE", 1)
    local_rank = _variable("LOCAL_RANK", 0)
    if world == 1:
        yield SINGLE
        return
    with _default_signals():
        store = _rendezvous(rank, world, "nccl" if _uses_gpu(device) else "gloo")
    try:
        # Rank 0 keeps its signal handlers: on its way out it leaves the folder of the run in order.
        with _default_signals() if rank else nullcontext():
            control_group = dist.new_group(timeout=CONTROL_TIMEOUT, backend="gloo")
            yield Processes(rank, world, local_rank, sharded, control_group)
    except ReportedElsewhere:
        raise
    except Exception as error:
        failure = _translated(error, rank)
        if status := _status_of_first_failure(store, rank, _status(failure)):
            raise ReportedElsewhere(status) from error
        raise failure from error
    # Not after a failure: this waits for the other ranks, which may have ended.
    dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        fault = f"{name} is {os.environ[name]!r}, not a number"
        raise ConfigurationError(fault, remedy="torchrun sets it") from None


def _uses_gpu(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


@contextmanager
def _default_signals() -> Iterator[None]:
    """Let signals end this process at once. While torch waits for another rank, Python calls no handler."""
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


def _rendezvous(rank: int, world: int, backend: str) -> Store:
    """Connect to the other processes and return the store that all share."""
    try:
        store: Store = next(rendezvous("env://", rank, world, timeout=STEP_TIMEOUT))[0]
        # The prefix keeps torch's own keys apart from ours.
        group_store = PrefixStore("group", store)
        dist.init_process_group(backend, store=group_store, rank=rank, world_size=world, timeout=STEP_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        fault = f"process {rank} cannot connect to the other {world - 1} ({str(error).splitlines()[0]})"
        raise ConfigurationError(fault, remedy="start them with torchrun") from error
    return store


def _translated(error: Exception, rank: int) -> Exception:
    """TryAgainError for what torch raises when another process ended; any other error as it is."""
    if isinstance(error, PruneError):
        return error
    # Older code in torch raises a plain RuntimeError, and only its text names the library.
    from_library = isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error))
    if not isinstance(error, dist.DistError) and not from_library:
        return error
    return TryAgainError(
        "another process of the run ended",
        place=f"process {rank}",
        remedy="--resume continues from the last checkpoint",
    )


def _status(error: Exception) -> int:
    """The exit status that an error leads to."""
    if isinstance(error, PruneError):
        return error.status
    if isinstance(error, OSError):
        return InputOutputError.status
    return OutOfMemoryError.status if ran_out_of_memory(error) else PruneError.status


def _status_of_first_failure(store: Store, rank: int, status: int) -> int:
    """The status of the process that failed first; 0 if it is this one, which then reports its error."""
    try:
        # The store writes a key once: whoever comes first is the one that reports.
        value: str = store.compare_set("failure", "", f"{rank} {status}").decode()
    except RuntimeError:
        # The process that holds the store ended. An error that is reported twice is better than none.
        return 0
    reporter, first_status = value.split()
    return 0 if int(reporter) == rank else int(first_status)
