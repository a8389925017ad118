"""Folders of samples as lm-evaluation-harness lays them out, for the tests of `eval --samples`."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

DATE = "2026-11-29T10-13-46.885242"


def sample(number, values, *, document=None, prompt="?", target="1", filter="none"):
    """A sample with the fields that are read. `document` is its content, by default its number."""
    content = f"document {number if document is None else document}"
    return {
        "doc_id": number,
        "doc": {"text": content},
        "target": target,
        "filter": filter,
        "metrics": list(values),
        "doc_hash": hashed(content),
        "prompt_hash": hashed(prompt),
        "target_hash": hashed(target),
        **values,
    }


def hashed(text):
    return sha256(text.encode()).hexdigest()


def samples(**metrics):
    """A sample for each document, from the values of each metric."""
    rows = zip(*metrics.values(), strict=True)
    return [sample(number, dict(zip(metrics, row, strict=True))) for number, row in enumerate(rows)]


def lay(folder: Path, date: str = DATE, results: dict[str, Any] | None = None, **tasks: Any) -> Path:
    """A folder with the samples of each task, and with results if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, made in tasks.items():
        lines = "".join(json.dumps(each) + "\n" for each in made)
        (folder / f"samples_{task}_{date}.jsonl").write_text(lines)
    if results is not None:
        (folder / f"results_{date}.json").write_text(json.dumps(results))
    return folder
