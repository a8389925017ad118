"""prune-cli report"""

from ..engines import local
from ..settings.report import Page, Subjects
from ..settings.streams import Reading
from .options import Files, command

COST = (
    "Reads everything once. Memory does not grow with the records: histograms, samples of 100,000 records "
    "and the documents that are shown. Copies are counted by 64-bit hashes of texts, estimated beyond 4 "
    "million distinct ones. Needs pip install 'prune-cli[report]', but for --json."
)
EXAMPLES = (
    (
        "Look at a cut before training on it:",
        "prune-cli report --slice shard.jsonl.zst ranked.jsonl.zst -o report.html",
    ),
    (
        "Show what came of it, too:",
        "prune-cli report --slice shard.jsonl.zst --run run/ --results results.jsonl ranked.jsonl.zst "
        "-o report.html",
    ),
    (
        "Use its numbers in a script:",
        "prune-cli report --json ranked.jsonl.zst | jq '.lengths[0].correlation'",
    ),
)


@command
def report(
    files: Files = None,
    subjects: Subjects = Subjects(),
    page: Page = Page(),
    reading: Reading = Reading(),
) -> int:
    """Make one HTML page of what was pruned: distributions, cuts, documents, training and results.

    FILEs are scored or ranked streams of one corpus. The page shows how each score is distributed, by source
    too, and what each --slice keeps of it; whether the cut is one by length; how scores agree; documents from
    the ends and from both sides of each cut; exact copies; the losses of each --run and the comparisons of
    each --results. Any of these may be missing.

    The page is a single file that works offline. It opens no connection, and texts of documents are shown as
    text whatever they contain.
    """
    from ..stages.report.run import ReportJob

    return local.run(ReportJob(tuple(files or ()), subjects, page, reading), reading)
