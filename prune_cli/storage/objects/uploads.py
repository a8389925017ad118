"""Which uploads did a killed run leave behind?

The parts of an upload that is neither completed nor aborted are invisible, and cost money. The client library
cannot list them, so the request is made and signed here, for S3 alone. Azure drops such parts after a week;
Google Cloud Storage shows them to `gcloud storage ls --uploads` only.
"""

import hashlib
import hmac
import html
import logging
import os
import re
import urllib.request
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException
from urllib.parse import quote, urlsplit

from ..os_errors import display
from ..remote.workers import WORKERS
from .client import client_of
from .credentials import Keys
from .urls import Address, object_at

PATIENCE = 10.0  # seconds: the answer is of no use to the run, and it begins without one
RULE = "a lifecycle rule (AbortIncompleteMultipartUpload) removes them"
_NOTHING = hashlib.sha256(b"").hexdigest()
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)

log = logging.getLogger(__name__)


def warn_of_unfinished(path: str) -> None:
    """Warn of an earlier upload of the object at `path` that was neither completed nor aborted."""
    address = object_at(path)
    keys = client_of(address.bucket).credentials.keys
    if address.bucket.scheme != "s3" or keys is None:
        return
    for began in WORKERS.run(partial(_unfinished, address, keys())):
        log.warning(
            "%s: an upload that began at %s was never completed, unless another run is writing it now; "
            "its parts cost money: %s (see the manual)",
            display(path),
            began,
            RULE,
        )


def _unfinished(address: Address, keys: Keys) -> list[str]:
    """When uploads of that very key began. Empty as well if the store does not answer, or does not say."""
    request = _signed(address, keys, datetime.now(UTC))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            text = response.read().decode("utf-8", "replace")
    except (OSError, HTTPException, ValueError) as error:
        log.info("%s: uploads that were left behind cannot be listed (%s)", address.bucket.name, error)
        return []
    uploads = _UPLOAD.findall(text)
    # The key is only a prefix in the request.
    return [_element("Initiated", each) for each in uploads if _element("Key", each) == address.key]


def _element(name: str, text: str) -> str:
    match = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return html.unescape(match[1]) if match else ""


def _signed(address: Address, keys: Keys, now: datetime) -> urllib.request.Request:
    """The request for the uploads of a key, with Signature Version 4 of AWS."""
    region = keys.region or _first("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    base = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    split = urlsplit(base)
    path = f"{split.path}/{quote(address.bucket.name)}"
    query = f"prefix={quote(address.key, safe='')}&uploads="
    time = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": split.netloc, "x-amz-content-sha256": _NOTHING, "x-amz-date": time}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"GET\n{path}\n{query}\n{lines}\n{names}\n{_NOTHING}"
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}".encode(), "sha256").hexdigest()
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return urllib.request.Request(f"{split.scheme}://{split.netloc}{path}?{query}", headers=headers)


def _first(*variables: str) -> str:
    """The value of the first of these variables that is set; "" if none is."""
    return next((os.environ[name] for name in variables if os.environ.get(name)), "")
