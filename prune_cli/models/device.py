"""What a device multiplies matrices in, and how fast: what the speed of a model is held against."""

import time
from typing import Any

import torch

# Dense products in bfloat16, floating-point operations a second, from the makers' data sheets; the first name that fits counts.
CARDS = {
    "B200": 2250e12,
    "H200": 989e12,
    "GH200": 989e12,
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
SIDE, SECONDS = 1024, 0.15  # of the matrices that a processor multiplies, and for how long


def has_bfloat16(device: torch.device) -> bool:
    """Whether it is native: emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return any(present for name, present in capabilities.items() if name.endswith("bf16"))


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second: of a card that is known by its name, in bfloat16; of a processor measured; else 0."""
    if device.type == "cpu":
        return _measured(dtype)
    name = torch.cuda.get_device_name(device)
    return (
        next((rate for card, rate in CARDS.items() if card in name), 0.0) if dtype == torch.bfloat16 else 0.0
    )


def _measured(dtype: torch.dtype) -> float:
    """The best of the products that fit into a moment; the first ones are slow."""
    matrix = torch.randn(SIDE, SIDE).to(dtype)
    product = torch.empty_like(matrix)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        torch.mm(matrix, matrix, out=product)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
