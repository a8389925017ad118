"""Which bucket and key does a URL name?"""

import re
from dataclasses import dataclass

from ...errors import UsageError
from ..os_errors import display

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
# `abfss://container@account.dfs.core.windows.net/path`, as Spark writes the address of an Azure container.
_AZURE_HOST = re.compile(r"([^@]+)@([^.@]+)\.[^@]+")


@dataclass(frozen=True)
class Bucket:
    """A bucket of S3 or Google Cloud Storage, or a container of Azure.

    `scheme` is s3, gs or az; `account` is that of an Azure URL that names it, else empty.
    """

    scheme: str
    name: str
    account: str = ""


@dataclass(frozen=True)
class Address:
    """A bucket and a key in it. The key is taken as it is written: nothing in it is decoded."""

    bucket: Bucket
    key: str


def parse(url: str) -> Address:
    """The bucket and key of a URL. Raises UsageError if it names no bucket."""
    match = _URL.fullmatch(url)
    assert match is not None  # the caller found its scheme
    scheme, host, key = match.groups()
    if not host:
        raise UsageError("names no bucket", place=display(url), remedy=f"{scheme}://BUCKET/KEY")
    if scheme != "abfss":
        return Address(Bucket(scheme, host), key)
    azure = _AZURE_HOST.fullmatch(host)
    if azure is None:
        remedy = "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY"
        raise UsageError("names no container and account", place=display(url), remedy=remedy)
    return Address(Bucket("az", azure[1], azure[2]), key)


def object_at(url: str) -> Address:
    """As `parse`, for a URL that has to name an object. Raises UsageError if it cannot be the name of one."""
    address = parse(url)
    if not address.key or address.key.endswith("/"):
        raise UsageError("names a folder, not an object", place=display(url), remedy="name an object in it")
    # Rejected by the client library, which would also take `a//b` and `a/b` for one key.
    parts = address.key.split("/")
    if "" in parts or "." in parts or ".." in parts or re.search(r"[\x00-\x1f\x7f]", address.key):
        fault = "has a key with an empty part, `.`, `..` or a control character, which cannot be named"
        raise UsageError(fault, place=display(url), remedy="rename the object")
    return address
