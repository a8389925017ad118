"""slice by several workers: what is kept, what is counted and what is said are those of one process."""

import json
import logging

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_cli.errors import DataError
from prune_cli.settings.slice import Keep, Selection, Slicing
from prune_cli.settings.streams import Streams, Unit
from prune_cli.stages.slice.cutting import columns, finding, order
from prune_cli.stages.slice.parts.run import SliceJob, SliceOnEngine

from ..conftest import prune, scored
from .sharded import CORPORA, Several, contents, files

ENDS = st.sampled_from([Keep.bottom, Keep.top])
FRACTIONS = st.sampled_from(["0", "0.3", "0.5", "1"])
BUDGETS = st.sampled_from([0, 8, 100_007, 10**7])
SELECTIONS = st.one_of(
    st.builds(Selection, keep=st.sampled_from(Keep), frac=FRACTIONS, invert=st.booleans()),
    st.builds(Selection, keep=st.sampled_from(Keep), tokens=BUDGETS, keep_unscored=st.booleans()),
    st.builds(Selection, keep=ENDS, frac=FRACTIONS, sample=st.just(2.0), seed=st.integers(0, 3)),
    st.builds(Selection, range_=st.sampled_from(["0.2:0.7", "0:1", "25%:25%"])),
    st.builds(Selection, least=st.sampled_from([-2.5, 0.0]), most=st.sampled_from([0.0, 1.0, 1e301])),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corpus=CORPORA,
    selection=SELECTIONS,
    by=st.sampled_from([None, *Unit]),
    within=st.sampled_from([None, "kind"]),
    has_rejects=st.booleans(),
    # Runs of a file, and cells that are sorted at once: of one record, of a few, and of all.
    run=st.sampled_from([1, 7, 1000]),
    cell=st.sampled_from([1, 3, 10, 1000]),
)
def test_records_counts_and_messages_are_those_of_one_process(
    tmp_path_factory, caplog, monkeypatch, corpus, selection, by, within, has_rejects, run, cell
):
    for module, name, size in ((columns, "RUN", run), (finding, "CELL", cell), (order, "CELL", cell)):
        monkeypatch.setattr(module, name, size)
    folder = tmp_path_factory.mktemp("slice")
    paths = tuple(files(folder, corpus))
    results = []
    for number in ("one", "several"):
        kept, rejected = folder / number, folder / f"{number}.rejected"
        slicing = Slicing(
            key="perplexity",
            by=by,
            within=None if selection.tokens is not None else within,
            rejects=str(rejected) if has_rejects else None,
            summary=str(folder / f"{number}.json"),
        )
        job = SliceJob(paths, selection, slicing, Streams(output=str(kept), allow_empty=True, progress=False))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            try:
                report = job.run() if number == "one" else SliceOnEngine(job, Several()).run()
            except DataError as error:
                results.append(str(error))
                continue
        summary = json.loads((folder / f"{number}.json").read_bytes())
        # The names of the files differ, and nothing else.
        written = [contents(path) for path in (kept, rejected)[: 1 + has_rejects]]
        results.append((written, summary, report, caplog.messages))
    assert results[0] == results[1]


def test_worker_processes_keep_what_one_process_keeps(tmp_path):
    paths = files(tmp_path, [scored(80), scored(40), scored(60)])
    options = ("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.4", *paths)
    prune(*options, "-o", tmp_path / "one", "--rejects", tmp_path / "one.rejects")
    prune(*options, "-o", tmp_path / "two", "--rejects", tmp_path / "two.rejects", "-j", 2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert contents(tmp_path / "two.rejects") == contents(tmp_path / "one.rejects")
    one = contents(tmp_path / "one")[0]
    assert prune(*options, "--plain", "-j", 2).stdout == one


def test_bad_records_are_skipped_by_both_readings(tmp_path):
    paths = files(tmp_path, [scored(20), scored(20)])
    for path in paths:
        with open(path, "a") as file:
            file.write('{"perplexity": "high"}\n')
    options = (
        "slice",
        "-k",
        "perplexity",
        "--min",
        "0",
        "--skip-bad",
        "--expect-records",
        42,
        "--plain",
        *paths,
    )
    one = prune(*options, "--group-by", "nothing", status=3)
    several = prune(*options, "--group-by", "nothing", "-j", 2, status=3)
    assert several.stdout == one.stdout
    assert several.stderr.count(b"2 bad records were skipped") == 1
    assert several.stderr.count(b"no record has a field `nothing`") == 1


def test_groups_that_are_too_many_for_a_trailer_are_in_none(tmp_path):
    corpus = [[{"perplexity": 1, "source": f"{part}-{row}"} for row in range(200)] for part in range(2)]
    paths = tuple(files(tmp_path, corpus))
    outputs = []
    for number, engine in (("one", None), ("several", Several())):
        output = tmp_path / number
        SliceJob(paths, Selection(least=0.0), Slicing(key="perplexity"), Streams(output=str(output))).run(
            engine
        )
        outputs.append(contents(output))
    assert outputs[0] == outputs[1]
    assert not outputs[0][2].groups


def test_duckdb_cuts_at_the_same_records(tmp_path, monkeypatch):
    for module, name, size in ((columns, "RUN", 20), (finding, "CELL", 30), (order, "CELL", 30)):
        monkeypatch.setattr(module, name, size)
    # Few scores, so that both ends of the cut are between ties, in different files.
    corpus = [
        [{**record, "perplexity": round(record["perplexity"] or 0, -1)} for record in scored(150)[start::3]]
        for start in range(3)
    ]
    paths = files(tmp_path, corpus)
    union = " UNION ALL ".join(
        f"SELECT *, {number} AS file FROM (SELECT *, row_number() OVER () AS place FROM read_json('{path}'))"
        for number, path in enumerate(paths)
    )
    way = "ORDER BY perplexity, file, place"
    query = f"""
        WITH numbered AS (
            SELECT id, source, row_number() OVER ({way}) - 1 AS rank, count(*) OVER () AS n,
                (sum(n_scored) OVER ({way} ROWS UNBOUNDED PRECEDING) - n_scored / 2.0)
                    / sum(n_scored) OVER () AS quantile,
                row_number() OVER (PARTITION BY source {way}) - 1 AS rank_within,
                count(*) OVER (PARTITION BY source) AS n_within
            FROM ({union})
        )
        SELECT id FROM numbered WHERE """
    for by, within, condition in (
        ("records", None, "rank >= floor(n * 0.2 + 0.5) AND rank < floor(n * 0.7 + 0.5)"),
        ("tokens", None, "quantile >= 0.2 AND quantile < 0.7"),
        (
            "records",
            "source",
            "rank_within >= floor(n_within * 0.2 + 0.5) AND rank_within < floor(n_within * 0.7 + 0.5)",
        ),
    ):
        output = tmp_path / f"{by}-{within}"
        slicing = Slicing(key="perplexity", by=Unit(by), within=within)
        job = SliceJob(tuple(paths), Selection(range_="0.2:0.7"), slicing, Streams(output=str(output)))
        job.run(Several())
        kept = {json.loads(line)["id"] for line in contents(output)[0].splitlines()}
        assert kept == {name for (name,) in duckdb.sql(query + condition).fetchall()}
