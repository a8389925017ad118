"""What holds for any records: they pass byte for byte, in order, none lost and none twice, however they are
cut into files and frames.
"""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..conftest import status_of, zstd

EXAMPLES = settings(
    max_examples=int(os.environ.get("EXAMPLES", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

RESERVED = {"perplexity", "rank", "quantile", "n_scored", "source", "text", "input_ids"}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4).filter(
    lambda name: name not in RESERVED
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SCORES = st.none() | st.floats(-1e300, 1e300) | st.integers(-3, 3)


@st.composite
def record(draw) -> bytes:
    """One record in one of the many ways in which JSON can be written, its score anywhere in it."""
    members = [*draw(st.dictionaries(NAMES, VALUES, max_size=3)).items(), ("perplexity", draw(SCORES))]
    members = draw(st.permutations(members))
    space = draw(st.sampled_from(["", " ", "\t"]))
    text = json.dumps(dict(members), ensure_ascii=draw(st.booleans()), separators=("," + space, ":" + space))
    return (
        (space + text + draw(st.sampled_from(["", " ", "\r"])))
        .encode("utf-8", "surrogatepass")
        .replace(b"\xed\xa0", b"??")
    )


RECORDS = st.lists(record(), min_size=1, max_size=25)


def run(tmp_path: Path, verb: str, inputs: list[Path], *options: object) -> bytes:
    target = tmp_path / f"{verb}.out"
    assert status_of(verb, "-q", "-f", *options, *inputs, "-o", target) == 0
    return target.read_bytes()


def written(tmp_path: Path, lines: list[bytes]) -> list[Path]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return [path]


def score_of(line: bytes) -> float | None:
    return json.loads(line)["perplexity"]


def without_rank(line: bytes) -> bytes:
    """The record as it came, from the record as `rank` wrote it."""
    start = line.rindex(b',"rank":')
    return line[:start] + line[line.rindex(b"}") :]


@EXAMPLES
@given(RECORDS)
def test_rank_is_a_permutation_in_order_and_every_byte_of_a_record_stays(tmp_path, lines):
    out = run(tmp_path, "rank", written(tmp_path, lines), "--plain").split(b"\n")[:-1]
    assert sorted(map(without_rank, out)) == sorted(lines)
    keyed = [(score_of(line) is None, score_of(line) or 0.0, at) for at, line in enumerate(lines)]
    assert [without_rank(line) for line in out] == [
        lines[at] for _, _, at in sorted(keyed, key=lambda each: (each[0], float(each[1]), each[2]))
    ]
    scored = [json.loads(line)["rank"] for line in out if score_of(line) is not None]
    assert scored == list(range(len(scored)))


@EXAMPLES
@given(RECORDS, st.sampled_from([[], ["--level", "19"], ["--threads", "5"], ["--single-frame"]]))
def test_zstd_decompresses_a_stream_to_the_plain_output(tmp_path, lines, options):
    inputs = written(tmp_path, lines)
    packed = run(tmp_path, "rank", inputs, *options)
    assert subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout == run(
        tmp_path, "rank", inputs, "--plain"
    )


@EXAMPLES
@given(RECORDS, st.sampled_from(["bottom", "middle", "top", "random"]), st.integers(0, 100), st.booleans())
def test_slice_and_its_rejects_together_are_the_input_in_order(tmp_path, lines, keep, percent, ranked):
    inputs = written(tmp_path, lines)
    options = ["--plain", "--keep", keep, "--frac", percent / 100, "--rejects", tmp_path / "rejects.jsonl"]
    if ranked:
        (tmp_path / "ranked.zst").write_bytes(run(tmp_path, "rank", inputs))
        inputs, lines = [tmp_path / "ranked.zst"], run(tmp_path, "rank", inputs, "--plain").split(b"\n")[:-1]
    else:
        options += ["-k", "perplexity"]
    kept = run(tmp_path, "slice", inputs, *options).split(b"\n")[:-1]
    rejected = (tmp_path / "rejects.jsonl").read_bytes().split(b"\n")[:-1]
    assert sorted(kept + rejected) == sorted(lines)
    for part in (kept, rejected):
        places = iter(lines)
        assert all(line in places for line in part), "the order of the input"
    count = sum(score_of(line) is not None for line in lines)
    assert len(kept) == (percent * count * 2 + 100) // 200


@EXAMPLES
@given(RECORDS, st.data())
def test_any_split_into_files_frames_and_formats_gives_the_same_output(tmp_path, lines, data):
    whole = run(tmp_path, "rank", written(tmp_path, lines), "--plain")
    borders = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=4)))
    paths: list[Path] = []
    for at, end in zip([0, *borders], [*borders, len(lines)], strict=True):
        text = b"".join(line + b"\n" for line in lines[at:end])
        cut = data.draw(st.integers(0, len(text)))
        pack = data.draw(
            st.sampled_from(
                [lambda *parts: b"".join(parts), zstd, lambda *parts: b"".join(map(gzip.compress, parts))]
            )
        )
        paths.append(tmp_path / f"part-{len(paths)}")
        paths[-1].write_bytes(pack(text[:cut], text[cut:]))
    assert run(tmp_path, "rank", paths, "--plain", "--allow-empty") == whole
    size = data.draw(st.sampled_from(["1", "2K", "1G"]))
    assert run(tmp_path, "rank", paths, "--plain", "--allow-empty", "-S", size) == whole


@pytest.mark.parametrize(
    "options", [["--threads", "1"], ["--threads", "8"], ["-S", "1"], ["-S", "8K", "--threads", "2"]]
)
def test_43_threads_and_memory_change_no_byte(options, corpus, tmp_path):
    assert run(tmp_path, "rank", [corpus], *options) == run(tmp_path, "rank", [corpus])
