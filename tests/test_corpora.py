"""Corpora as they lie: the layouts of C4, DCLM, The Pile, SlimPajama, Dolma and RedPajama-V2."""

import gzip
import json
import subprocess

import pytest

from .conftest import ROOT, Corpus, lines, records, zstd
from .faults.machine import peak

# As DCLM writes a file: one zstd frame without a checksum, and no line end at its end.
DCLM = [
    zstd(lines([{"id": name, "text": "a b c"}, {"id": name * 2, "text": "d e"}])[:-1], write_checksum=False)
    for name in "xy"
]
SLIM_PAJAMA: Corpus = [
    {"text": f"text {at}", "meta": {"redpajama_set_name": f"RedPajama{'C4' if at % 3 else 'Github'}"}}
    for at in range(12)
]
DOLMA: Corpus = [
    {
        "id": f"http://x/{at}",
        "text": f"text {at}",
        "source": "c4" if at % 3 else "stack",
        "added": "2023-04-11T09:57:03.044571+00:00",
        "created": "2019-04-25T12:57:54Z",
        "metadata": {"subreddit": None, "length": at},
    }
    for at in range(12)
]
RANDOM = ("score", "-m", "random")


def test_a_gzip_file_of_many_members_is_read_to_its_end(tmp_path, here):
    path = tmp_path / "c4-train.00000-of-01024.json.gz"
    made = [{"text": f"text {at}", "timestamp": "2019-04-25T12:57:54Z", "url": "u"} for at in range(500)]
    # Members begin anywhere in a line, as those of bgzip and pigz do.
    whole = lines(made)
    path.write_bytes(b"".join(gzip.compress(whole[at : at + 97]) for at in range(0, len(whole), 97)))
    unpacked = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout
    assert unpacked == whole
    assert [record["text"] for record in records(here(*RANDOM, path).stdout)] == [r["text"] for r in made]


def test_one_large_zstd_frame_is_streamed(tmp_path):
    """200 MB of text in one frame, as each file of The Pile is; the memory is that of a few pieces."""
    text = lines([{"text": "lorem ipsum " * 800, "perplexity": 1.5, "n_scored": 1}]) * 1000
    path = tmp_path / "00.jsonl.zst"
    with (
        path.open("wb") as file,
        subprocess.Popen(["zstd", "-1"], stdin=subprocess.PIPE, stdout=file) as zstd1,
    ):
        for _ in range(20):
            zstd1.stdin.write(text)
        zstd1.stdin.close()
    small = tmp_path / "small.jsonl.zst"
    small.write_bytes(zstd(text[:100_000].rpartition(b"\n")[0] + b"\n"))
    sizes = []
    for each in (small, path):
        status, said, size = peak("slice", "-k", "perplexity", "--max", "1", each)
        assert status == 0, said
        sizes.append(size)
    assert sizes[1] - sizes[0] < 60 << 20


@pytest.mark.parametrize("second", [DCLM[1], b'{"id":"y","text":"z"}\n'], ids=["zstd", "plain"])
def test_a_last_line_without_an_end_does_not_join_the_next_file(second, tmp_path, here):
    (tmp_path / "1.zst").write_bytes(DCLM[0])
    (tmp_path / "2").write_bytes(second)
    found = records(here(*RANDOM, tmp_path / "1.zst", tmp_path / "2").stdout)
    assert [record["id"] for record in found] == ["x", "xx", "y", "yy"][: len(found)]
    assert len(found) >= 3


def test_files_that_cat_has_joined_in_the_middle_of_a_line_are_refused(here):
    """zstd -dc makes one line of two records, too: a frame may end anywhere in a line."""
    said = here(*RANDOM, stdin=b"".join(DCLM), status=65).stderr.decode()
    assert "(standard input):2: not JSON" in said
    assert "two records on one line: were files without a last line end joined? name them one by one" in said


def test_the_content_decides_of_a_name_with_two_suffixes(tmp_path, here):
    path = tmp_path / "c4-train.json.gz"
    path.write_bytes(zstd(lines(DOLMA)))
    done = here(*RANDOM, "-O", tmp_path / "out", path)
    assert b"the name says gzip, the content is zstd: read as zstd" in done.stderr
    [made] = (tmp_path / "out").glob("*.zst")
    assert made.name == "c4-train.json.zst"
    assert len(records(made.read_bytes())) == 12


def test_redpajama_v2_has_its_text_in_another_field(here):
    stdin = lines([{"url": "u", "raw_content": "text", "date_download": "2023-06-05"}])
    [record] = records(here(*RANDOM, "--text-field", "raw_content", stdin=stdin).stdout)
    assert list(record) == ["url", "raw_content", "date_download", "random"]


def pipeline(here, made, *group):
    """score, rank and slice, and what stat says of the result."""
    scored = here(*RANDOM, *group, stdin=lines(made)).stdout
    ranked = here("rank", *group, stdin=scored).stdout
    done = here("slice", "--keep", "middle", "--frac", "0.5", *group, stdin=ranked)
    return done, json.loads(here("stat", stdin=done.stdout).stdout)


def test_dolmas_source_is_what_records_are_counted_by(here):
    done, summary = pipeline(here, DOLMA)
    kept = records(done.stdout)
    assert len(kept) == 6
    by_id = {record["id"]: record for record in DOLMA}
    for record in kept:
        assert {name: record[name] for name in by_id[record["id"]]} == by_id[record["id"]]
    counted = {name: group["records"] for name, group in summary["groups"].items()}
    assert counted == {
        name: count for name in ("c4", "stack") if (count := sum(record["source"] == name for record in kept))
    }


def test_pack_counts_blocks_by_dolmas_source_and_slim_pajamas_once_it_is_copied_out(here):
    options = ("pack", "--tokenizer", ROOT / "prune_cli" / "reference", "--context", "8", "--group-by")
    done = here(*options, "source", "--carry", "source,metadata", stdin=lines(DOLMA))
    assert {record["source"] for record in records(done.stdout)} <= {"c4", "stack"}
    summary = json.loads(here("stat", stdin=done.stdout).stdout)
    assert sum(group["records"] for group in summary["groups"].values()) == summary["records"] > 0
    nested = "meta.redpajama_set_name"
    said = here(*options, nested, "--carry", nested, stdin=lines(SLIM_PAJAMA)).stderr.decode()
    assert f"no document has a field `{nested}` to carry" in said


def test_slim_pajamas_nested_source_is_named_with_the_way_out(here):
    done, summary = pipeline(here, SLIM_PAJAMA)
    assert len(records(done.stdout)) == 6
    assert summary["groups"] == {}
    said = here(
        "rank", "-k", "n", "--group-by", "meta.redpajama_set_name", stdin=b'{"n":1,"meta":{}}\n'
    ).stderr
    assert b"no record has a field `meta.redpajama_set_name`" in said
    remedy = "jq -c '.redpajama_set_name = .meta.redpajama_set_name'"
    assert remedy.encode() in said
    flat = [{**record, "redpajama_set_name": record["meta"]["redpajama_set_name"]} for record in SLIM_PAJAMA]
    done, summary = pipeline(here, flat, "--group-by", "redpajama_set_name")
    assert sum(group["records"] for group in summary["groups"].values()) == 6
    assert set(summary["groups"]) <= {"RedPajamaC4", "RedPajamaGithub"}
