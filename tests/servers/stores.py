"""Which object stores run on this machine for the tests, and how is each started and asked?"""

import base64
import http.client
import json
import os
import re
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from . import signing
from .processes import INSTALLED, PROGRAMS, answers, free_ports, program, running

KEY, SECRET = "tests", "no-secret-at-all"
ACCOUNT, ACCOUNT_KEY = "tests", base64.b64encode(b"no secret at all").decode()

BUCKET = "tests"
PUBLIC_BUCKET = "public"  # anybody may read and list it, nobody may write there without credentials

# Where a server of somebody else, or credentials, could come from on a developer's machine.
FOREIGN_VARIABLES = re.compile("^(AWS|AZURE|GOOGLE|GCS|HF|HUGGING_FACE)_")


@dataclass(frozen=True)
class Answer:
    """What a server said to a raw request."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def texts(self, tag: str) -> list[str]:
        """The texts of all elements of that name, whatever their namespace, in a body of XML."""
        elements = xml.fromstring(self.body).iter()
        return [each.text or "" for each in elements if each.tag.rpartition("}")[2] == tag]


def send(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own, with no library that could retry or repair anything."""
    split = urlsplit(url)
    with closing(http.client.HTTPConnection(split.hostname, split.port, timeout=60)) as connection:
        target = split.path + (f"?{split.query}" if split.query else "")
        connection.request(method, target, body=body or None, headers=headers or {})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())


@dataclass(frozen=True)
class Store:
    """A running object store; `via` gives the same store behind a proxy."""

    scheme: str  # of its URLs on our command line
    endpoint: str  # with a path where the store wants one
    variables: dict[str, str]  # of the environment: where it is, who we are

    @property
    def port(self) -> int:
        return int(urlsplit(self.endpoint).port)

    def url(self, key: str) -> str:
        return f"{self.scheme}://{BUCKET}/{key}"

    def via(self, port: int) -> "Store":
        there, here = f"127.0.0.1:{self.port}", f"127.0.0.1:{port}"
        variables = {name: value.replace(there, here) for name, value in self.variables.items()}
        return replace(self, endpoint=self.endpoint.replace(there, here), variables=variables)

    def environment(self) -> dict[str, str]:
        """The environment of a process that knows this store and no other."""
        return {n: v for n, v in os.environ.items() if not FOREIGN_VARIABLES.match(n)} | self.variables

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """A signed request; the path begins with the bucket and may have a query."""
        url = f"{self.endpoint}/{path}"
        if self.scheme == "az":
            signed = signing.azure_headers(method, url, body, ACCOUNT, ACCOUNT_KEY, headers or {})
        else:
            signed = signing.s3_headers(method, url, body, KEY, SECRET, headers or {})
        return send(method, url, body, signed)

    def put(self, key: str, body: bytes) -> None:
        kind = {"x-ms-blob-type": "BlockBlob"} if self.scheme == "az" else {}
        answer = self.send("PUT", f"{BUCKET}/{quote(key)}", body, kind)
        assert answer.status in (200, 201), answer

    def get(self, key: str) -> bytes | None:
        """The bytes of an object; None where there is none."""
        answer = self.send("GET", f"{BUCKET}/{quote(key)}")
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the objects that anybody can see; at most a thousand."""
        listing = "restype=container&comp=list" if self.scheme == "az" else "list-type=2"
        answer = self.send("GET", f"{BUCKET}?{listing}&prefix={quote(prefix, safe='')}")
        assert answer.status == 200, answer
        return answer.texts("Name" if self.scheme == "az" else "Key")

    def open_uploads(self, prefix: str = "") -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted.

        Azure has none: blocks that are not committed belong to a blob of no bytes that a listing may show.
        """
        if self.scheme == "az":
            listing = f"restype=container&comp=list&include=uncommittedblobs&prefix={quote(prefix, safe='')}"
            every = self.send("GET", f"{BUCKET}?{listing}").texts("Name")
            return sorted({*every} - {*self.keys(prefix)})
        answer = self.send("GET", f"{BUCKET}?prefix={quote(prefix, safe='')}&uploads=")
        assert answer.status == 200, answer
        # Moto lists the uploads of the whole bucket.
        return [key for key in answer.texts("Key") if key.startswith(prefix)]


def s3_variables(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def s3_store(port: int) -> Store:
    store = Store("s3", f"http://127.0.0.1:{port}", s3_variables(port))
    for bucket in (BUCKET, PUBLIC_BUCKET):
        assert store.send("PUT", bucket).status == 200
    return store


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Store]:
    """A real store: signatures, conditions, ranges, multipart uploads; its files are in the folder."""
    weed = program(PROGRAMS / "weed")
    everything = ["Admin", "Read", "List", "Tagging", "Write"]
    identities = [
        {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": everything,
        },
        {"name": "anonymous", "actions": [f"Read:{PUBLIC_BUCKET}", f"List:{PUBLIC_BUCKET}"]},
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    services = ("master", "volume", "filer", "s3")
    numbers = free_ports(2 * len(services))
    ports = [f"-{each}.port={numbers.pop()}" for each in services]
    # Left to themselves they stand 10,000 higher, where nobody looked whether the port is free.
    ports += [f"-{each}.port.grpc={numbers.pop()}" for each in services]
    port = int(ports[3].rpartition("=")[2])
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", *ports]
    command += ["-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    # Telemetry is on by default; a volume that is full answers 500.
    command += ["-master.telemetry=false", "-volume.max=100", "-master.volumeSizeLimitMB=64"]
    with running(command, folder, lambda: answers(port)):
        yield s3_store(port)


@contextmanager
def moto(folder: Path) -> Iterator[Store]:
    """An emulator of S3 in memory; it checks no signature."""
    (port,) = free_ports(1)
    command = [program(PROGRAMS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, folder, lambda: answers(port)):
        yield s3_store(port)


@contextmanager
def rclone(folder: Path) -> Iterator[Store]:
    """A hostile store: it ignores If-Match and If-None-Match, so it overwrites when asked to create."""
    (port,) = free_ports(1)
    (folder / "files").mkdir()
    command = [program(PROGRAMS / "rclone"), "serve", "s3", str(folder / "files")]
    command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", "/dev/null"]
    with running(command, folder, lambda: answers(port)):
        yield s3_store(port)


@contextmanager
def azurite(folder: Path) -> Iterator[Store]:
    """The emulator of Azure Blob Storage by its maker."""
    script = INSTALLED / "node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    (port,) = free_ports(1)
    command = ["node", program(script), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(folder), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    with running(command, folder, lambda: answers(port), env=environment):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        variables = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
        store = Store("az", endpoint, variables)
        assert store.send("PUT", f"{BUCKET}?restype=container").status == 201
        yield store
