"""prune-cli pack"""

from ..engines import choose, local
from ..settings.pack import Packing
from ..settings.streams import Streams, WorkerSettings
from .options import Files, command

COST = (
    "Reads once. Holds a few megabytes of documents in memory and writes blocks as they fill. With --jobs "
    "the input is read twice, and the tokens are in temporary files meanwhile, four bytes each."
)
EXAMPLES = (
    (
        "Make blocks of 2,048 tokens that keep their source, and score them:",
        "prune-cli pack --tokenizer gpt2/ --carry source corpus.jsonl.zst"
        " | prune-cli score --model gpt2/ > scored.jsonl.zst",
    ),
    (
        "Make blocks of 512 tokens, and keep the last one even if it is short:",
        "prune-cli pack --tokenizer gpt2/ --context 512 --last keep corpus.jsonl.zst -o blocks.jsonl.zst",
    ),
)


@command
def pack(
    files: Files = None,
    packing: Packing = Packing(),
    streams: Streams = Streams(),
    workers: WorkerSettings = WorkerSettings(),
) -> int:
    """Pack documents into token blocks of one length, the unit that the paper ranks.

    Documents are tokenized, followed by an EOS token each, concatenated and cut into blocks without padding.
    A block has `id`, `input_ids`, `n_tokens` and `spans`, one for each stretch of a document: the number of
    the document (and its id), where the stretch starts in the document, where it stands in the block, and its
    number of tokens.
    """
    from ..stages.pack.run import PackJob, PackOnEngine

    with choose.open_engine(workers, streams) as engine:
        return local.run(PackOnEngine(PackJob(tuple(files or ()), packing, streams), engine), streams)
