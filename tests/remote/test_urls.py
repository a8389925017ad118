"""Which storage a URL belongs to, and what is loaded and asked for it."""

import subprocess
import sys

import pytest

from prune_cli import storage
from prune_cli.errors import ConfigurationError, UsageError
from prune_cli.storage.objects.urls import Address, Bucket, object_at

from ..conftest import ROOT, prune


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket/a/b c%20ü.jsonl.zst", Address(Bucket("s3", "bucket"), "a/b c%20ü.jsonl.zst")),
        ("gs://bucket/a", Address(Bucket("gs", "bucket"), "a")),
        ("az://container/a", Address(Bucket("az", "container"), "a")),
        (
            "abfss://container@account.dfs.core.windows.net/a/b",
            Address(Bucket("az", "container", "account"), "a/b"),
        ),
    ],
)
def test_a_url_names_a_bucket_and_a_key(url, address):
    assert object_at(url) == address


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("s3://", "names no bucket; s3://BUCKET/KEY"),
        ("s3:///key", "names no bucket"),
        ("s3://bucket", "names a folder, not an object"),
        ("s3://bucket/folder/", "names a folder, not an object"),
        ("s3://bucket/a//b", "cannot be named"),
        ("s3://bucket/../b", "cannot be named"),
        ("s3://bucket/a\nb", "cannot be named"),
        ("abfss://container/a", "names no container and account"),
    ],
)
def test_a_url_that_names_no_object_is_a_usage_error(url, fault):
    with pytest.raises(UsageError, match=fault):
        object_at(url)


def test_an_unknown_scheme_is_a_usage_error_that_lists_the_known_ones(here):
    said = here("rank", "foo://bucket/key", status=2).stderr.decode()
    assert "foo://bucket/key: unknown scheme foo://; known are" in said
    assert all(f"{scheme}://" in said for scheme in ("s3", "gs", "az", "abfss"))


def test_the_client_library_is_loaded_only_for_a_url(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a", "perplexity": 1.5}\n')
    script = (
        "import sys; from prune_cli import cli; status = cli.run(sys.argv[1:]);"
        "print(status, [name for name in ('obstore', 'boto3') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "rank", tmp_path / "in.jsonl", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == "0 []\n"


def test_without_the_client_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    for name in [name for name in sys.modules if name.startswith("prune_cli.storage.objects")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(storage, "_STORAGES", {})
    with pytest.raises(ConfigurationError, match=r"pip install 'prune-cli\[remote\]'"):
        storage.input_at("s3://bucket/key")


def test_a_bad_patience_is_a_configuration_error(monkeypatch):
    prune(
        "rank",
        "s3://bucket/key",
        status=78,
        env={"PATH": "", "PRUNE_CLI_REMOTE_PATIENCE": "long", "AWS_ACCESS_KEY_ID": "x"},
    )
