"""prune-cli score"""

from ..engines import choose, local
from ..settings.model import ModelSettings
from ..settings.score import ScoreResults, Scores, ScoreSettings, Trial
from ..settings.streams import Streams, WorkerSettings
from .options import Files, command

COST = (
    "One pass. Records are written in windows of a few hundred, each a frame of its own. Memory is that of "
    "the model and of one batch (--batch-tokens); the logits of a whole batch never exist at once. The model "
    "takes nearly all of the time: --dry-run estimates it."
)
EXAMPLES = (
    (
        "Score with your own model; if the run is stopped, the same command resumes it:",
        "prune-cli score --model ./gpt2 corpus.jsonl.zst -o scored.jsonl.zst --resume",
    ),
    (
        "Try it with the small reference model that is shipped with the package:",
        "prune-cli score corpus.jsonl.zst | prune-cli rank > ranked.jsonl.zst",
    ),
    (
        "Score the answers of fine-tuning data behind their prompts, and how much these help:",
        "prune-cli score -m perplexity -m instruction_difficulty --prompt-field prompt --text-field answer "
        "pairs.jsonl.zst > scored.jsonl.zst",
    ),
    (
        "Score what the assistant says in conversations:",
        "prune-cli score --chat --model ./chat-model conversations.jsonl.zst > scored.jsonl.zst",
    ),
    (
        "Compute three metrics in one pass, and write only the scores:",
        "prune-cli score -m perplexity -m el2n -m entropy --only id,perplexity,el2n,entropy,n_scored "
        "corpus.jsonl.zst > scores.jsonl.zst",
    ),
    (
        "Estimate what scoring a corpus would take:",
        "prune-cli score --model ./gpt2 --dry-run corpus/*.jsonl.zst",
    ),
    (
        "Score on the second of four machines:",
        "prune-cli score --model ./gpt2 --shard 2/4 -O scored/ corpus/*.jsonl.zst",
    ),
    (
        "Drop the hundredth of a corpus that repeats itself most, without a model:",
        "prune-cli score -m compression corpus.jsonl.zst | "
        "prune-cli slice -k compression --keep bottom --frac 0.99 > varied.jsonl.zst",
    ),
    (
        "Remove what shares 13 words in a row with a test set:",
        "prune-cli score -m overlap --held-out test.jsonl.zst corpus.jsonl.zst | "
        "prune-cli slice -k overlap --max 0 > clean.jsonl.zst",
    ),
    (
        "Keep documents whose tokens are neither rare nor common in the corpus, without a model:",
        "prune-cli stat --token-counts counts.json --tokenizer ./gpt2 corpus.jsonl.zst\n"
        "prune-cli score -m token_prior_mean --priors counts.json --tokenizer ./gpt2 corpus.jsonl.zst | "
        "prune-cli slice -k token_prior_mean --keep middle --frac 0.5 > middle.jsonl.zst",
    ),
    (
        "Keep what a fastText classifier takes for good:",
        "prune-cli score -m quality --classifier ./quality.bin corpus.jsonl.zst | "
        "prune-cli slice -k quality --keep top --frac 0.1 > good.jsonl.zst",
    ),
    (
        "Score with an n-gram model, as CCNet does:",
        "prune-cli score --model ./en.arpa --normalize ccnet corpus.jsonl.zst > scored.jsonl.zst",
    ),
    (
        "Measure how much better one model predicts a text than another:",
        "prune-cli score -m excess_loss --model ./gpt2 --against ./base corpus.jsonl.zst > excess.jsonl.zst",
    ),
)


@command
def score(
    files: Files = None,
    scores: Scores = Scores(),
    results: ScoreResults = ScoreResults(),
    trial: Trial = Trial(),
    running: ModelSettings = ModelSettings(),
    streams: Streams = Streams(),
    workers: WorkerSettings = WorkerSettings(),
) -> int:
    """Score records with a causal language model.

    Adds one field per metric, and `nll_sum` (nats over the scored tokens), `n_scored` (number of scored
    tokens) and `n_bytes` (UTF-8 bytes of the scored tokens). The order of the records is kept. With
    --resume, the same command continues a run that was stopped in any way, and the output is the same as
    without the interruption. The outputs of --shard 1/N to N/N, concatenated with `cat`, are a valid
    stream. The default model is a small one shipped with the package, for trying out and triage.

    --prompt-field scores a text behind a prompt, both tokenized on their own; --chat the assistant's turns
    of `messages`, with the end that the chat template gives them, in one pass for all turns. Every count is
    of the scored tokens. Where a text goes beyond the context, its later windows do not see the prompt; a
    prompt that is itself longer than the context leaves a record without a score, which is counted.

    --dry-run prints an estimate from the first records: `records`, `tokens`, `flops`, `hours_here`,
    `gpu_hours` (on an H100 at 40 % of its peak rate), `bytes` (of the output), `sampled_records` and
    `sampled_share`. --summary writes the counts of the run, its `seconds` and `tokens_per_second`, and
    under `score` everything that the scores depend on.
    """
    from ..stages.score.run import ScoreWork

    settings = ScoreSettings(scores, results, trial, running, streams)
    work = ScoreWork(tuple(files or ()), settings)
    with choose.open_engine(workers, streams, device=work.device) as engine:
        return local.run_jobs(work, streams, engine)
