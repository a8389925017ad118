"""Which device and number format a model runs with, and how fast the device multiplies matrices."""

import re
import time
from typing import Any

import torch

from ..errors import ConfigurationError, UsageError
from ..settings.model import DEVICES

# Dense products in bfloat16, floating-point operations a second, from the makers' data sheets. The first
# entry whose words are in the GPU's name counts, so "H100 PCIe" stands before "H100".
GPU_RATES = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A40": 150e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
TEST_SIDE = 1024  # of the square matrices that measure a CPU: 4 MB in float32, large enough for full speed
TEST_SECONDS = 0.15


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for: `auto` is the first GPU, or the CPU if there is none.

    Raises UsageError for a name that means nothing, and ConfigurationError for a GPU that this machine does
    not have.
    """
    if not DEVICES.fullmatch(name):
        raise UsageError(f"{name!r} is not one of auto, cpu, cuda, cuda:N", place="--device")
    if name == "all":
        remedy = "use cuda or cuda:N; torchrun trains on several"
        raise UsageError("only score has a worker for each GPU", place="--device all", remedy=remedy)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError("there is no such device", place=name, remedy="use --device cpu")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format that a name stands for: `auto` is bfloat16 where the device multiplies it natively,
    else float32.
    """
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a number format as options and records spell it: float32, not torch.float32."""
    return str(dtype).removeprefix("torch.")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively. Where it is emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere was the first
    # Older versions of torch cannot tell. The names are avx512_bf16 and amx_bf16 on x86, bf16 on ARM.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    in_hardware = any(present for name, present in capabilities.items() if name.endswith("bf16"))
    # ONEDNN_MAX_CPU_ISA may keep the library that multiplies from what the CPU can do.
    in_library = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    return in_hardware and bool(in_library())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in matrix products: measured for a CPU, from the data sheet for a
    GPU in bfloat16.

    0 where the data sheet is not known.
    """
    if device.type == "cpu":
        return _measured_rate(dtype)
    if dtype != torch.bfloat16:
        return 0.0
    name = torch.cuda.get_device_name(device)
    # Whole words: an "L40" is not an "L4", and an "RTX A4000" not an "A40".
    return next((rate for gpu, rate in GPU_RATES.items() if re.search(rf"\b{gpu}\b", name)), 0.0)


def _measured_rate(dtype: torch.dtype) -> float:
    """The rate of the fastest product within TEST_SECONDS. The first ones are slow: kernels are chosen and
    memory is touched.
    """
    matrix = torch.randn(TEST_SIDE, TEST_SIDE).to(dtype)
    product = torch.empty_like(matrix)
    fastest = float("inf")
    end = time.perf_counter() + TEST_SECONDS
    while (start := time.perf_counter()) < end:
        torch.mm(matrix, matrix, out=product)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * TEST_SIDE**3 / fastest  # a multiplication and an addition for each of side³ terms
