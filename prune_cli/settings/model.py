"""How is a model run: on which device, with which numbers, over which windows?"""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from ..errors import UsageError
from .option import option
from .streams import COMPUTING

# torch would accept more device types; these are the ones that are tested.
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?|all")

EVERY_GPU = "all"


class Bos(StrEnum):
    """Whether a document gets a token in front, so that its first token can be scored."""

    auto = "auto"
    always = "always"
    never = "never"


class Dtype(StrEnum):
    """The number format that a model computes in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


# `train` shows the next two among options of its own.
Device = Annotated[
    str,
    option(
        "--device",
        metavar="DEVICE",
        variable="PRUNE_CLI_DEVICE",
        group=COMPUTING,
        help="Device: auto, cpu, cuda, cuda:N or all. auto is a GPU if there is one. all is a worker process "
        "for each GPU; only score has it.",
    ),
]
NumberFormat = Annotated[
    Dtype,
    option(
        "--dtype",
        metavar="TYPE",
        group=COMPUTING,
        help="Number format: auto, float32 or bfloat16. auto is bfloat16 where the hardware supports it: "
        "faster, but the perplexity of a short document is off by up to 1 % and varies by as much with "
        "its batch; that of a corpus is off by 0.01 %.",
    ),
]


@dataclass(frozen=True)
class ModelSettings:
    """How a model is run. Loading replaces `auto` and None by the values that it chose; scores record those.

    Raises UsageError for a value that no model could use.
    """

    GROUP: ClassVar[str] = COMPUTING
    # The order of the fields is that in the heads of existing streams.
    device: Device = "auto"
    dtype: NumberFormat = Dtype.auto
    context: Annotated[
        int | None,
        option(
            "--context", metavar="N", min=1, help="Tokens per window. The default is the model's maximum."
        ),
    ] = None
    stride: Annotated[
        int | None,
        option(
            "--stride",
            metavar="N",
            min=1,
            help="Tokens scored per window after the first. The rest of a window is context. "
            "By default windows do not overlap.",
        ),
    ] = None
    bos: Annotated[
        Bos,
        option(
            "--bos",
            metavar="WHEN",
            help="Put a BOS token in front: auto, always or never. "
            "auto does it for documents, not for blocks. "
            "It is the tokenizer's BOS, or else that of config.json, or else EOS.",
        ),
    ] = Bos.auto
    batch_tokens: Annotated[
        int | None,
        option(
            "--batch-tokens",
            metavar="N",
            min=1,
            is_count=True,
            help="Tokens per batch. A smaller batch takes less memory. N may end in K, M or G (powers of "
            "1000).",
        ),
    ] = None

    def __post_init__(self) -> None:
        # The command line checks these too; a Python caller passes strings.
        self._check_choice("dtype", tuple(Dtype))
        self._check_choice("bos", tuple(Bos))
        if not DEVICES.fullmatch(self.device):
            raise UsageError(f"{self.device!r} is not one of auto, cpu, cuda, cuda:N, all", place="--device")
        for name in ("context", "stride", "batch_tokens"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError("must be 1 or more", place=f"--{name.replace('_', '-')}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value: str = getattr(self, name)
        # Not `value in Dtype`: before Python 3.12 that is a TypeError for a plain string.
        if value not in choices:
            raise UsageError(f"{str(value)!r} is not one of {', '.join(choices)}", place=f"--{name}")

    def recorded(self) -> dict[str, Any]:
        """The settings as values of JSON, in the order in which stream heads record them."""
        # A replaced value keeps its place, and the bytes of a head their order.
        return asdict(self) | {"dtype": str(self.dtype), "bos": str(self.bos)}
