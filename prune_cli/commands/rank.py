"""prune-cli rank"""

from ..engines import choose, local
from ..settings.rank import Ranking
from ..settings.streams import Streams, WorkerSettings
from .options import Files, command

COST = (
    "Reads everything before it writes, except with --merge. Memory is -S plus 110 MiB; a record takes 128 "
    "bytes besides its text. What does not fit is sorted in -T: compressed, written once and read once. With "
    "--jobs everything is sorted in -T, compressed only if it is larger than half of the machine's memory. "
    "The parent takes up to a tenth of the time of all, to put the parts together, and next to none with "
    "-O. A dataset that was stopped is sorted again, and only what is missing is written."
)
EXAMPLES = (
    (
        "Rank a scored corpus by its perplexity:",
        "prune-cli rank -k perplexity scored.jsonl.zst -o ranked.jsonl.zst",
    ),
    (
        "Rank each source on its own, by tokens, with two disks to sort on:",
        "prune-cli rank --by tokens --within source -S 2G -T /tmp -T /var/tmp scored.jsonl.zst"
        " > ranked.jsonl.zst",
    ),
    (
        "Merge the rankings of several machines into one:",
        "prune-cli rank --merge part-*.jsonl.zst -o ranked.jsonl.zst",
    ),
    (
        "Rank many files with a process per CPU, each with 2 GiB to sort in:",
        "prune-cli rank -j auto -S 2G -T /scratch scored/*.jsonl.zst -o ranked.jsonl.zst",
    ),
    (
        "Rank into a dataset; if the run is stopped, the same command makes the parts that are missing:",
        "prune-cli rank -j auto -k perplexity -T /scratch -O ranked/ scored/*.jsonl.zst",
    ),
    ("Check that a file is in order:", "prune-cli rank --check ranked.jsonl.zst"),
)


@command
def rank(
    files: Files = None,
    ranking: Ranking = Ranking(),
    streams: Streams = Streams(),
    workers: WorkerSettings = WorkerSettings(),
) -> int:
    """Order records by a score and add `rank` and `quantile`.

    Rank 0 is the lowest score. The quantile of a record is the share of records, or of tokens, below its
    middle: (rank + 1/2) / N. Ties keep their input order; records whose score is null come last, unranked.
    """
    from ..stages.rank.run import RankJob, RankOnEngine

    with choose.open_engine(workers, streams) as engine:
        return local.run(RankOnEngine(RankJob(tuple(files or ()), ranking, streams), engine), streams)
