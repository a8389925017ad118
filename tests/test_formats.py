"""Input formats: the first bytes decide which one reads a file."""

import gzip
import io

import pytest

from prune_cli import formats
from prune_cli.errors import DataError
from prune_cli.formats import jsonl

from .conftest import zstd

TEXT = b'{"text":"a"}\n{"text":"b"}\n'
FILES = {"plain": TEXT, "gzip": gzip.compress(TEXT, mtime=0), "zstd": zstd(TEXT)}


@pytest.mark.parametrize(("name", "data"), FILES.items(), ids=FILES)
def test_the_first_bytes_decide(name, data):
    assert formats.detect(data[:8]).name == name
    assert b"".join(formats.read(io.BytesIO(data))) == TEXT


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".gz", ".zst", ".zstd"])
@pytest.mark.parametrize(("name", "data"), FILES.items(), ids=FILES)
def test_a_name_with_the_wrong_suffix_is_a_warning(name, data, suffix):
    warnings: list[str] = []
    assert b"".join(formats.read(io.BytesIO(data), warn=warnings.append, name=f"in{suffix}")) == TEXT
    suffixes = formats.detect(data[:8]).suffixes
    assert (warnings == []) == (suffix in suffixes)
    assert all(f"the content is {name}: read as {name}" in warning for warning in warnings)


@pytest.mark.parametrize("magic", jsonl.FOREIGN)
def test_a_foreign_format_is_named_with_a_remedy(magic):
    with pytest.raises(DataError) as caught:
        list(formats.read(io.BytesIO(magic + bytes(100))))
    name, remedy = jsonl.FOREIGN[magic]
    assert caught.value.fault.startswith(name)
    assert caught.value.remedy == remedy


def test_every_file_has_a_format():
    assert formats.FORMATS[-1].matches(b"")
    assert len({each.name for each in formats.FORMATS}) == len(formats.FORMATS)
