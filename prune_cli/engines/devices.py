"""Which GPUs does this machine have? Found out without CUDA: whoever asks CUDA occupies one."""

import os
import re
import subprocess

from ..errors import ConfigurationError

PATIENCE = 60  # seconds that nvidia-smi may take; on a machine of eight GPUs without persistence it takes ten
# `GPU 0: NVIDIA H100 (UUID: GPU-5a...)`, and below it `  MIG 1g.10gb Device 0: (UUID: MIG-1b...)`.
_LISTED = re.compile(r"^(\s*)(?:GPU|MIG) .*\(UUID: ([^)]+)\)", re.MULTILINE)


def every_gpu() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises ConfigurationError if there is none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        names = listed(_nvidia_smi())
    if not names:
        remedy = "leave out --device all; -j auto uses every CPU"
        raise ConfigurationError("this machine has no GPU", place="--device all", remedy=remedy)
    return names


def listed(text: str) -> list[str]:
    """The names in the output of `nvidia-smi -L`.

    A GPU that is divided can only be used by its parts. Names, not numbers: CUDA may count in another order.
    """
    names: list[str] = []
    whole = ""
    for indent, name in _LISTED.findall(text):
        if not indent:
            whole = name
        elif names and names[-1] == whole:
            names.pop()
        names.append(name)
    return names


def _nvidia_smi() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
