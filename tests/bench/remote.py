"""Object storage beside local files: python -m tests.bench.remote CORPUS.jsonl.zst SCRATCH [RUNS]

The store is a SeaweedFS on this machine, where shell/install-servers put it. A proxy before it counts bytes
and delays requests. SCRATCH holds the corpus three times.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from prune_cli import storage
from prune_cli.stream.index import read_table

from ..servers.chaos import Proxy
from ..servers.stores import Store, seaweedfs
from .timing import OURS, compare, show

OBJECTS = 1000
LATENCY = 0.02  # seconds a request
MIB = 1 << 20


def main(corpus: Path, scratch: Path, runs: int) -> None:
    (scratch / "store").mkdir()
    with seaweedfs(scratch / "store") as store:
        os.environ |= store.variables
        store.put("corpus.zst", corpus.read_bytes())
        read_whole(store, corpus, scratch, runs)
        with Proxy(store.port) as proxy:
            os.environ |= store.via(proxy.port).variables
            slice_a_range(store, proxy, corpus, scratch)
            describe_many(store, proxy, corpus, scratch)


def read_whole(store: Store, corpus: Path, scratch: Path, runs: int) -> None:
    """Time and memory of verbs that read everything."""
    rank = (*OURS, "rank", "-T", scratch)
    cut = (*OURS, "slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.5")
    for verb, command in (("rank", rank), ("slice -k", cut)):
        local, remote = f"{verb}, a file", f"{verb}, an object"
        commands = {local: (*command, corpus), remote: (*command, store.url("corpus.zst"))}
        show(compare(commands, runs), local)


def slice_a_range(store: Store, proxy: Proxy, corpus: Path, scratch: Path) -> None:
    """Bytes that a range takes, and those of the frames that hold it."""
    ranked, kept = scratch / "ranked.zst", ("--range", "0.4:0.6")
    subprocess.run([*OURS, "rank", corpus, "-o", ranked], check=True)
    store.put("ranked.zst", ranked.read_bytes())
    proxy.exchanges.clear()
    command = [*OURS, "slice", *kept, store.url("ranked.zst"), "-o", scratch / "range.zst"]
    subprocess.run(command, check=True)
    with storage.input_at(str(ranked)).open() as file:
        table = read_table(file)
    assert table is not None
    frames = table.frames
    scored = sum(frames.records) - sum(frames.nulls)
    needed = sum(
        size
        for size, first, last in zip(frames.size, frames.first, frames.last, strict=True)
        if first is not None and last is not None and last >= 0.4 * scored and first < 0.6 * scored
    )
    print(
        f"slice --range 0.4:0.6: {proxy.sent() / MIB:.1f} MiB sent, in frames that hold it {needed / MIB:.1f}"
    )


def describe_many(store: Store, proxy: Proxy, corpus: Path, scratch: Path) -> None:
    """Seconds and requests of `stat` of many small objects, each request delayed."""
    small = scratch / "small.zst"
    subprocess.run(
        f"zstd -dc {corpus} | head -100 | {' '.join(OURS)} rank -o {small}", shell=True, check=True
    )
    for number in range(OBJECTS):
        store.put(f"many/{number:04}.zst", small.read_bytes())
    proxy.exchanges.clear()
    proxy.fail("", "latency", seconds=LATENCY)
    start = time.perf_counter()
    subprocess.run([*OURS, "stat", store.url("many/*.zst")], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    print(f"stat of {OBJECTS} objects: {seconds:.1f} s, {len(proxy.exchanges)} requests, {LATENCY} s each")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int((sys.argv[3:] or ["3"])[0]))
