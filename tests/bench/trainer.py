"""transformers' Trainer on SCRATCH/blocks.jsonl and a model of SCRATCH/config.json, its tokens a second in
SCRATCH/theirs.txt.

python trainer.py SCRATCH BATCH ROWS DTYPE, of a batch ROWS blocks at a time
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Clock(TrainerCallback):
    """When each step was over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *arguments: Any, **more: Any) -> None:
        self.times.append(time.perf_counter())


def main(scratch: Path, batch: int, rows: int, dtype: str) -> None:
    blocks = [json.loads(line)["input_ids"] for line in (scratch / "blocks.jsonl").read_text().splitlines()]
    values = json.loads((scratch / "config.json").read_text())
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    settings = TrainingArguments(
        str(scratch / "theirs"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=batch // rows,
        max_steps=4,
        learning_rate=6e-4,
        adam_beta2=0.95,
        weight_decay=0.1,
        bf16=dtype == "bfloat16",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    data, clock = [{"input_ids": ids, "labels": ids} for ids in blocks], Clock()
    Trainer(model, settings, train_dataset=data, callbacks=[clock]).train()
    seconds = [after - before for before, after in zip(clock.times[:-1], clock.times[1:], strict=True)]
    (scratch / "theirs.txt").write_text(str(batch * len(blocks[0]) / statistics.median(seconds)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
