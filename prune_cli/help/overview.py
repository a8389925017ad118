"""What prune-cli(1) says beside the verbs: streams, records, exit status, environment. Words, and nothing that runs."""

from .. import errors

DESCRIPTION = (
    "prune-cli prunes pretraining corpora for language models: `score` a corpus with a language model, `rank` it by a score, `slice` out a "
    "part of the distribution, `train` on the part, `eval` the result; `pack` makes the unit of the paper, `stat` says what a stream "
    "holds. Marion et al. (2023) showed that a model trained on the middle half of a web corpus, ranked by a reference model's "
    "perplexity, can beat one trained on all of it.",
    "The verbs are filters: records in, records out, and they compose in a pipe.",
)
STREAMS = (
    "Input is any number of FILE operands, `-` or none for standard input: zstd (any number of frames), gzip or plain, recognised by "
    "its first bytes and never by its name. A terminal is not read.",
    "Output is standard output or `-o FILE`: zstd, which `zstd -dc`, jq, DuckDB, polars, datasets and fsspec read as they read any "
    "other; JSON Lines with `--plain`, with `-o` and a name that ends in .jsonl, or on a terminal. For the few readers that stop after "
    "one frame `--single-frame` writes one. FILE is written beside, synced and renamed; one that exists is refused without `-f`, and "
    "an output is never one of the inputs.",
    "A stream of ours says what it is and when it is whole: a head (verb, version, how it was made), frames with checksums, a trailer "
    "with the counts and CRC-32 of each, and a seek table in the official format. Where a part is missing, the next verb fails, so that a "
    "pipe needs no pipefail. Files of ours can be put after one another with `cat`. A stream that went through `zstdcat | jq | zstd` has "
    "lost head and trailer and still works; what is missing is asked for by an option.",
    "The same input and options give the same decompressed bytes, whatever `--threads`, `-S` or the load of the machine (of one zstd "
    "library the compressed ones, too). Scores are the same on the same machine with the same options and input. In float32 they "
    "are within 1e-4 whatever else is in the batch; in bfloat16 that of a short document moves by up to one per cent.",
)
RECORDS = (
    "One JSON object a line. `text` (a string) or `input_ids` (a block of tokens; it wins) is what is scored; everything else is "
    "opaque. A record passes through byte for byte, and new fields are added at its end. A field that is already there is an error, "
    "unless `--overwrite` replaces it or `--prefix` names the new one otherwise.",
    "`score` adds a field for each metric, and `nll_sum`, `n_scored` and `n_bytes`; `rank` adds `rank` and `quantile`; `pack` writes "
    "records of its own (`id`, `input_ids`, `n_tokens`, `spans`).",
    "A record in which nothing can be scored has the score null: `rank` puts it last, and `slice` keeps it only with "
    "`--keep-unscored`. NaN, infinity, strings and booleans as scores are errors that name the record.",
    "A SIZE is a number of bytes, or one with K, M, G or T (powers of 1024) or % of memory.",
)
STATUSES = {
    0: "Done.",
    **{
        error.status: (error.__doc__ or "").strip()
        for error in (
            errors.CheckFailed,
            errors.UsageError,
            errors.DataError,
            errors.NoInputError,
            errors.UnavailableError,
            errors.OutOfMemoryError,
            errors.CannotCreateError,
            errors.InputOutputError,
            errors.TryAgainError,
            errors.PermissionDeniedError,
            errors.ConfigurationError,
        )
    },
    3: "Done, but bad records were skipped, as --skip-bad asked.",
    70: "A bug of prune-cli; please report it.",
}
BY_SIGNAL = "128 + N: ended by signal N. 141, silently, where the reader of the output went away."
ENVIRONMENT = {
    "PRUNE_CLI_MODEL": "The model that scores where --model names none.",
    "PRUNE_CLI_DEVICE": "Where to compute where --device does not say.",
    "TMPDIR": "Where rank sorts what does not fit in memory, and slice keeps a pipe that is read twice.",
    "ZSTD_CLEVEL": "The compression level where --level does not say.",
    "ZSTD_NBTHREADS": "The threads that compress where --threads does not say.",
    "NO_COLOR": "No colour on a terminal.",
    "TERM": "Where it is dumb, there are no progress bars.",
    "HF_HOME": "Where models that were named by their hub name are kept, as the libraries read it.",
    "CUDA_VISIBLE_DEVICES": "The GPUs there are to be, as the libraries read it.",
    "OMP_NUM_THREADS": "The threads that compute.",
}
MESSAGES = (
    "Standard error is for people. A failure is one line, `prune-cli VERB: FILE:LINE: fault; remedy`. Off a terminal a run that "
    "succeeds prints nothing but warnings; on one there are progress, time left, and a closing line.",
)
