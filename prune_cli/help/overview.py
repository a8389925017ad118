"""The parts of prune-cli(1) that no verb declares: streams, records, exit status, environment."""

from .. import errors

DESCRIPTION = (
    "prune-cli prunes pretraining corpora for language models. `score` a corpus with a language model, "
    "`rank` it by a score, `slice` out a part of the distribution, `train` on the part, `eval` the result; "
    "`pack` cuts documents into blocks, `stat` describes a stream. Marion et al. (2023) showed that a model "
    "trained on the middle half of a web corpus, ranked by the perplexity of a reference model, can beat a "
    "model trained on all of it.",
    "The verbs are filters: they read records, write records, and compose in a pipe.",
)
STREAMS = (
    "Input is any number of FILE operands; `-`, or no operand, is standard input. zstd (any number of "
    "frames), gzip, Parquet and plain text are recognised by their first bytes, never by names. zstd frames "
    "and gzip members may follow each other in one file. prune-cli does not read records from a terminal.",
    "The shell expands patterns of local names; prune-cli expands those in URLs, in sorted order, and one "
    "that matches nothing is an error. `*` and `[a-z]` stand for characters of one part of a key, `**` for "
    "any number of parts, `{a,b}` and `{00..99}` for each spelling; quote them. `[*]` is a star itself, as "
    "`[[]` and `[{]` are brackets. A slash at the end is a folder: all names in it, at any depth, ending in "
    ".jsonl, .ndjson or .json (also with .zst, .zstd or .gz) or in .parquet, but for those that begin with a "
    "dot or an underscore. `--files-from LIST` reads more names from a file, without patterns.",
    "`hf://datasets/OWNER/NAME@REVISION/PATH` is a file of a dataset on the Hugging Face Hub. The revision "
    "(main, if it is left out) is pinned to a commit for the run. Each file is copied to TMPDIR while it is "
    "read, and once more for each further pass.",
    "Output is standard output or `-o FILE`. It is zstd, which `zstd -dc`, jq, DuckDB, polars, datasets and "
    "fsspec read like any other. It is JSON Lines with `--plain`, with `-o` and a name that ends in .jsonl, "
    "or on a terminal. A few readers stop after the first frame; `--single-frame` writes a single one for "
    "them. FILE is written to a temporary name, synced and renamed. An existing FILE is refused without "
    "`-f`, which keeps its permissions. `/dev/stdout`, `/dev/stderr` and `/dev/fd/N` are descriptors "
    "that are already open: output goes to their current position. An output is never one of the inputs.",
    "A stream written by prune-cli says what it is and where it ends. It has a head (verb, version, "
    "provenance), frames with checksums, a trailer with the counts and CRC-32 of each frame, and a seek "
    "table in the official format. If a part is missing, the next verb fails, so a pipe needs no pipefail. "
    "Such files concatenate with `cat`. A stream that went through `zstdcat | jq | zstd` has lost its head "
    "and trailer and still works; pass the lost information as options, such as --by.",
    "The same input and options give the same decompressed bytes, whatever `--threads`, `-S` or the load of "
    "the machine; with one version of the zstd library, also the same compressed bytes. Scores are the same "
    "on the same machine with the same options and input. In float32 they are within 1e-4 for any batch; in "
    "bfloat16 the score of a short document moves by up to one per cent.",
)
RECORDS = (
    "A record is one JSON object on one line. `text` (a string) or `input_ids` (a block of tokens; it wins) "
    "is scored; everything else is opaque. A record passes through byte for byte, and new fields are added "
    "at its end. A new field that already exists is an error, unless `--overwrite` replaces it or "
    "`--prefix` renames the new one.",
    "`score` adds one field per metric, and `nll_sum`, `n_scored` and `n_bytes`. `rank` adds `rank` and "
    "`quantile`. `pack` writes new records (`id`, `input_ids`, `n_tokens`, `spans`).",
    "A record in which nothing can be scored has the score null: `rank` puts it last, and `slice` keeps it "
    "only with `--keep-unscored`. NaN, infinity, strings and booleans as scores are errors that name the "
    "record.",
    "An option that has no effect beside another, such as -o with `rank --check`, is a usage error.",
    'An empty value, such as that of an unset variable in `-o "$OUT"`, is a usage error for every option '
    "but `--prefix`, and for operands.",
    "Text that is no Unicode (invalid UTF-8, or a lone surrogate such as `\\ud83d`) is refused by the verbs "
    "that use its field, and `--skip-bad` skips such records. In a field that a verb does not use, it is "
    "passed on as it is: `rank` and `slice` keep a record that `score`, `pack`, `train` and `eval` refuse "
    "for its text. `source` counts as a used field, because records are counted by it.",
    "An option that names a field names one of the record itself: `meta.source` is not looked up inside "
    "`meta`; `jq -c '.source = .meta.source'` copies it out. Counts are whole numbers from 0 to below 2^53 "
    "(7.0 is one, too), and their sums stay below 2^62.",
    "A SIZE is a number of bytes, or a number followed by K, M, G or T (powers of 1024) or by % (of memory). "
    "A count of tokens or records may end in K, M or G, too: there they are powers of 1000, as in "
    "--tokens 1.5M.",
)
PARQUET = (
    "The rows of a Parquet file are read in order as records of JSON, each with all columns, or with those "
    "of --columns. They are the records that DuckDB writes with COPY ... (FORMAT json), except that times "
    "follow ISO 8601. This input needs pyarrow: pip install 'prune-cli[parquet]'. A row is a line in "
    "messages: web.parquet:7 is its seventh row.",
    "A null is written as null. Integers, decimals and floats are numbers, floats of 32 and 16 bits with "
    "the digits of the equal float of 64 bits. Dates, times and timestamps are strings such as 2020-01-02, "
    "03:04:05.12 and 2020-01-02T03:04:05.12; a timestamp that the file calls UTC ends in Z. Durations are "
    "counts of the unit of the file. Lists are arrays; structs and maps are objects; a key of a map becomes "
    "a string. Texts that the file calls JSON stay texts.",
    "NaN, infinity, text that is no UTF-8 and years outside of 0 to 9999 are errors that name row and "
    "column; --skip-bad skips such rows. A binary column is an error as such, which --skip-bad does not "
    "change: --columns leaves such columns out, and a text that is stored as binary has to be cast to "
    "string. At most 10,000 columns are read.",
    "Memory is that of a few megabytes of rows, and of one page of each column, which some writers make as "
    "large as a row group. A pipe is copied to a temporary file in TMPDIR first. Damage is detected where "
    "the writer stored checksums of pages, which not all do.",
)
DATASETS = (
    "`score -O DIR` makes a dataset: DIR/plan.json, which names the parts that are to be made, the parts, "
    "and DIR/manifest.json, which names all of them once they are there. An input is one part, which keeps "
    "its name (web.jsonl.zst), or if it is larger several of about 256 MB of text "
    "(web.00001-of-00004.jsonl.zst). Streams of prune-cli are cut between frames, Parquet between row "
    "groups and plain text between lines; other files are not cut. A part that has its name is whole. DIR "
    "may be a URL.",
    "A dataset is an operand of every verb, by its folder or its manifest: it stands for its parts in order. "
    "The verb fails before it writes anything if the dataset is unfinished, or if a part is missing or not "
    "that of the manifest. The same command makes what is missing of an unfinished dataset, and finds "
    "nothing to do for a finished one. Parts of further inputs are added to the plan; other settings, or an "
    "input that would be cut in another way, are refused (78). -f begins again.",
    "A second run of the same command on a dataset that is being made ends with status 75. Where files have "
    "locks, a run that was killed can be repeated at once; on object storage after two minutes, in which it "
    "has given no sign of life in its run-*.json.",
)
ENGINES = (
    "`--jobs N` works in N processes on this machine, `--jobs auto` in one for each CPU, and "
    "`--device all` in one for each GPU. They share the CPUs. What is written does not depend on how many "
    "there are.",
    "A worker that dies, loses its GPU or runs out of memory is replaced, and its part is tried again, three "
    "times at most; then the run ends with status 75 and names the part. Parts that are finished stay. Bad "
    "data ends the run at once. The workers of a run that is killed end by themselves.",
    "`--engine ray` has the workers on a Ray cluster: that of `--ray-address HOST:PORT` or RAY_ADDRESS, "
    "or else one of this machine that ends with the run. There is one worker per GPU if the cluster has "
    "any and the verb has a model, else one per CPU; `--jobs` asks for fewer. It needs pip install "
    "'prune-cli[ray]'. Run it on a node of the cluster. Every node has to see the inputs, local models, "
    "the folder of the outputs and that of temporary files under the same path (a shared folder, or "
    "URLs): this is checked before work begins. Credentials come from the environment of the nodes. If a "
    "node is lost, its parts are tried again elsewhere; if the head is lost, the same command continues "
    "on a new cluster.",
    "Every node needs the same version of prune-cli. To ship it with the run, name it in a runtime_env, such "
    """as `{"pip": ["prune-cli"]}`: with --runtime-env-json of `ray job submit`, or as """
    """`{"runtime_env": {"pip": ["prune-cli"]}}` in the variable RAY_JOB_CONFIG_JSON_ENV_VAR.""",
    "`--shard I/N` with `-O` makes every N-th part of the plan, starting with the I-th, in this process: for "
    "Slurm and other schedulers. The one that finds all parts finished writes the manifest. Without `-O` the "
    "records are dealt in turn.",
    "With one output, workers write temporary streams beside it, or in TMPDIR if it goes elsewhere, and "
    "their frames are copied into it in order. A worker is at most two parts ahead of it. A pipe is read by "
    "one process; --resume with a single output needs one process.",
    "`--status-file FILE` writes a JSON object every two seconds: `state` (running, done or failed), `verb`, "
    "`parts_done` and `parts`, `done` and `of` (mostly bytes of input), `rate` (of these a second), "
    "`seconds`, `seconds_left`, `workers`, `tried_again` and `updated` (seconds since 1970).",
)
REMOTE = (
    "An input is a path or a URL: s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, "
    "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY, https:// and http://. Outputs (-o, -O, --rejects, "
    "--summary, --per-document) go to all but the last two. Buckets need obstore: pip install "
    "'prune-cli[remote]'. There is no network traffic unless a URL or the hub name of a model is given.",
    "Credentials are those of the cloud's own tools: the environment, and the service that a cloud machine "
    "asks for its role. Profiles and SSO of AWS are read by boto3, where it is installed. --no-sign-request "
    "sends none. AWS_ENDPOINT_URL names another server that speaks S3.",
    "Objects are read in ranges of 8 MiB, four ahead of the reader, each for the version (ETag) that the run "
    "began with: an object that is replaced meanwhile is an error (65). A web server without ranges or "
    "versions is asked once, for the whole file, which goes to a temporary file in TMPDIR and is checked for "
    "its length. `stat`, and `slice` of a ranked object, fetch head, trailer and the frames that they need.",
    "A request that gets no answer, a reset, 429 or 5xx is repeated with growing pauses for "
    "PRUNE_CLI_REMOTE_PATIENCE; then the run ends with 69, the URL and the number of tries.",
    "An object appears when it is whole. Up to one part (8 MiB, or 32 MiB where the size of the input is "
    "unknown) it is a single request, else an upload in parts that is completed at the end, and aborted "
    "when the run fails or is stopped. Then its size is compared. Without `-f` an object that exists is "
    "refused before the work, and again at the end: for a single request by a condition of the store, for "
    "uploads in parts by a look just before they are completed, because stores have no condition for these. "
    "Two runs that write one object at the same moment both write it whole; the last one stays. A part is "
    "sized by the input, at most 9,000 parts for ten times its size; output of a pipe may have 320 GB.",
    "A run that is killed (-9) may leave parts of an upload, invisible but paid for. The next run that "
    "writes the same object of S3 names them; Azure drops them after a week. A lifecycle rule of the bucket "
    'removes them by itself: {"Rules": [{"ID": "parts", "Status": "Enabled", "Filter": {}, '
    '"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}, set by `aws s3api '
    "put-bucket-lifecycle-configuration`. An upload cannot be resumed: for long runs `score -O URL/` writes "
    "one object per input and skips finished ones.",
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
    3: "Done, but bad records were skipped (--skip-bad).",
    70: "A bug of prune-cli; please report it.",
}
BY_SIGNAL = "128 + N: ended by signal N. 141, in silence: the reader of the output closed the pipe."
ENVIRONMENT = {
    "PRUNE_CLI_MODEL": "Default of score --model.",
    "RAY_ADDRESS": "Default of --ray-address.",
    "PRUNE_CLI_DEVICE": "Default of --device.",
    "PRUNE_CLI_REMOTE_PATIENCE": "Seconds for which a request to a server is repeated; 600 by default.",
    "AWS_*, GOOGLE_*, AZURE_*": "Credentials, region and address of object storage, such as "
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL, "
    "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY.",
    "HTTPS_PROXY, NO_PROXY": "The proxy for URLs, and hosts that are reached without it.",
    "TMPDIR": "Directory for temporary files of rank (-T), of slice for a pipe that it reads twice, for "
    "Parquet from a pipe, and for a file of a web server without ranges.",
    "ZSTD_CLEVEL": "Default of --level.",
    "ZSTD_NBTHREADS": "Default of --threads.",
    "NO_COLOR": "Disables colour on a terminal.",
    "TERM": "The value dumb disables progress bars.",
    "HF_TOKEN": "Access token of the Hugging Face Hub, for private and gated datasets and models.",
    "HF_ENDPOINT": "Address of another Hub.",
    "HF_HOME": "Cache of models that are named by their hub name; read by the Hugging Face libraries.",
    "CUDA_VISIBLE_DEVICES": "The GPUs to use; read by torch.",
    "OMP_NUM_THREADS": "Number of compute threads; read by torch.",
}
MESSAGES = (
    "Standard error is for people. A failure is one line, `prune-cli VERB: FILE:LINE: fault; remedy`. Off a "
    "terminal, a successful run prints only warnings. On a terminal it shows progress with the time left, "
    "and one closing line.",
)
