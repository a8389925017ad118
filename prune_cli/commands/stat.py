"""prune-cli stat"""

from ..engines import choose, local
from ..settings.stat import Inspection
from ..settings.streams import Reading, WorkerSettings
from .options import Files, command

COST = (
    "Reads only the trailer of a complete file written by prune-cli. Any other input, -k, --verify and "
    "--duplicates read every record: 16 bytes of memory per record and score, and 24 more per record for "
    "duplicates. --agree takes 150 bytes per record at its peak. --jobs divides files among processes, or "
    "the records of a single file, unless these have ranks to verify or tokens to count."
)
EXAMPLES = (
    ("Show the thresholds of a ranking:", "prune-cli stat ranked.jsonl.zst | jq .scores"),
    (
        "Check every byte of a file, and count its duplicates:",
        "prune-cli stat --verify --duplicates corpus.jsonl.zst",
    ),
    (
        "Measure where the middle half lies, for streams that come later:",
        "prune-cli stat -k perplexity --thresholds 0.25,0.75 scored.jsonl.zst > cut.json",
    ),
    (
        "Compare what slices by two scores would keep:",
        "prune-cli score -m perplexity -m el2n corpus.jsonl.zst | prune-cli stat --agree perplexity,el2n"
        " | jq .agreement",
    ),
    (
        "Ask whether another model is as good a reference:",
        "prune-cli score --model ./base corpus.jsonl.zst | prune-cli stat --agree perplexity "
        "--scores scored.jsonl.zst",
    ),
)


@command
def stat(
    files: Files = None,
    inspection: Inspection = Inspection(),
    reading: Reading = Reading(),
    workers: WorkerSettings = WorkerSettings(),
) -> int:
    """Print the records, tokens and score thresholds of streams, by source.

    Writes one JSON object per file: `records`, `nulls` (records without a score), `tokens` (null if no record
    counts them), `bytes` of text, `groups` (records and tokens by --group-by), and for each of `scores` its
    `quantiles`. The quantile at 0.25, for example, is the lowest score that `slice --range 0.25:1`
    keeps, counted in the unit of the ranking. `length_correlation` is Spearman's correlation of score and
    length. The trailer of a ranked file has the thresholds of the whole file; thresholds of a file that was
    only scored, and thresholds by group, need -k or --verify. With -k overlap, `touched` is the number
    of records above 0.

    --thresholds adds `cut`, which `slice --cut` reads: the scores at two fractions, in the unit of the
    ranking, and the share of the records between them. Equal scores are not divided, so the share may differ
    from HI - LO. There is no bound at 0 and at 1.

    --agree adds `agreement`, an object for each pair of scores, over the records that have both: `spearman`
    (rank correlation), and `overlap` for cuts of 10, 30, 50 and 70 % at the bottom, middle and top, made by
    records and made by tokens. An overlap counts what the `first` score keeps, what the `second` keeps and
    what `both` do; `jaccard` is both over what at least one keeps, `share` is both over the first. `groups`
    has the same by --group-by: its correlation is within the group, the cuts are those of the whole.

    --token-counts FILE counts how often each token of --tokenizer occurs in all inputs together, for
    `score --priors`.

    A dataset is one object, with the number of its `parts`, and `parts_done` of them while it is made.
    """
    from ..stages.stat.run import StatJob, StatOnEngine

    with choose.open_engine(workers, reading) as engine:
        return local.run(StatOnEngine(StatJob(tuple(files or ()), inspection, reading), engine), reading)
