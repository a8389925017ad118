"""prune-cli slice"""

from ..engines import choose, local
from ..settings.slice import Selection, Slicing
from ..settings.streams import Streams, WorkerSettings
from .options import Files, command

COST = (
    "Reads a ranked stream, or any with --cut, once, in constant memory. Copies whole frames of a ranked "
    "file as they are, and does not read those outside the cut. -k, --within, --tokens, --sample and --keep "
    "random read twice (a pipe is copied to a temporary file) and take about 40 bytes of memory per record, "
    "70 if tokens are counted. --jobs divides the reading and the writing of these among processes: the keys "
    "of the records go into temporary files, 32 bytes each, and the memory of a process does not grow with "
    "their number. -O has the file system or the store copy files of a ranking that are kept whole, without "
    "reading them: their checksums are checked when the copy is read."
)
EXAMPLES = (
    (
        "Keep the middle half of a ranking:",
        "prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst -o shard.jsonl.zst",
    ),
    (
        "Read the texts at the median:",
        "prune-cli slice --range 0.49:0.51 --plain ranked.jsonl.zst | jq -r .text",
    ),
    (
        "Split a scored corpus into its easier and its harder half, in its own order:",
        "prune-cli slice -k perplexity --keep easy --frac 0.5 --rejects hard.jsonl.zst scored.jsonl.zst"
        " -o easy.jsonl.zst",
    ),
    (
        "Keep 100,000 tokens from the middle outwards, and count what was kept of each source:",
        "prune-cli slice --keep middle --tokens 100000 --summary kept.json ranked.jsonl.zst"
        " -o shard.jsonl.zst",
    ),
    (
        "Slice by two scores: the top fifth, by the second one, of the middle half by the first:",
        "prune-cli slice -k perplexity --keep middle --frac 0.5 scored.jsonl.zst"
        " | prune-cli slice -k n_scored --keep top --frac 0.2 > shard.jsonl.zst",
    ),
    (
        "The same, but a fifth of the whole corpus:",
        "prune-cli slice -k perplexity --keep middle --frac 0.5 scored.jsonl.zst"
        " | prune-cli slice -k n_scored --keep top --frac 0.2 --of-all > shard.jsonl.zst",
    ),
    (
        "Keep what lies within thresholds measured before, of records that come in by and by:",
        "prune-cli score new.jsonl.zst | prune-cli slice --cut cut.json --drift > shard.jsonl.zst",
    ),
    (
        "Keep the middle half of a ranked dataset; if the run is stopped, the same command continues it:",
        "prune-cli slice --keep middle --frac 0.5 -O middle/ ranked/",
    ),
    (
        "Keep a random half as a baseline:",
        "prune-cli slice --keep random --frac 0.5 --seed 1 ranked.jsonl.zst -o random.jsonl.zst",
    ),
)


@command
def slice(
    files: Files = None,
    selection: Selection = Selection(),
    slicing: Slicing = Slicing(),
    streams: Streams = Streams(),
    workers: WorkerSettings = WorkerSettings(),
) -> int:
    """Keep a part of the distribution of a score.

    Counts are exact, input order breaks ties, and records pass through byte for byte. Records keep the
    quantiles of the original ranking, so slicing a slice still refers to the whole corpus: --range 0.9:1 of a
    slice is the part of the slice above the 0.9 quantile of the ranking. A smaller fraction or token budget
    is always a subset of a larger one. Records whose score is null are kept only with --keep-unscored.

    With -k, fractions are those of the records that come in. So a slice by a second score keeps a fraction of
    what the first slice left, and with --of-all a fraction of all scored records that there were before it:
    all that is left, if that is less.

    --cut compares each record with two scores, whatever else is in the stream. --drift compares the share
    of scored records inside the cut with the share where it was measured (p of N records): it should lie
    within 4 sqrt(p (1 - p) (1/n + 1/N)) of p.

    --summary writes a JSON object: the options of the cut, `by` (the unit of fractions), `in`, `kept`, `cut`
    and `unscored` (records and tokens), the same by `groups`, `ties` that the cut divides,
    `length_correlation`, and `drift`.
    """
    from ..stages.slice.parts.run import SliceJob, SliceOnEngine

    job = SliceJob(tuple(files or ()), selection, slicing, streams)
    with choose.open_engine(workers, streams) as engine:
        return local.run(SliceOnEngine(job, engine), streams)
