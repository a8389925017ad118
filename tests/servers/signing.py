"""How does a test sign a raw request to S3 or to Azure Blob Storage?

The tests look at stores by these forty lines and http.client, not by the library that the package uses: an
oracle must not share the fault. Formulas: "Signature Version 4" of AWS, "Shared Key" of Azure.
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

Headers = dict[str, str]


def s3_headers(method: str, url: str, body: bytes, key: str, secret: str, headers: Headers) -> Headers:
    """The headers of a request to S3, with its signature; the host is that of the URL."""
    split = urlsplit(url)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    lowered = {name.lower(): value for name, value in headers.items()}
    signed = lowered | {"host": split.netloc, "x-amz-date": now, "x-amz-content-sha256": digest}
    pairs = sorted(parse_qsl(split.query, keep_blank_values=True))
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            split.path or "/",
            "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            digest,
        ]
    )
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    # Each part of the scope is a key for the next: date, region, service, the word aws4_request.
    derived = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    signature = hmac.digest(derived, text.encode(), "sha256").hex()
    credential = f"Credential={key}/{scope},SignedHeaders={names},Signature={signature}"
    return signed | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}


def azure_headers(method: str, url: str, body: bytes, account: str, key: str, headers: Headers) -> Headers:
    """The headers of a request to Azure Blob Storage, with its signature."""
    split = urlsplit(url)
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    lowered = {name.lower(): value for name, value in headers.items()}
    signed = lowered | {"x-ms-date": now, "x-ms-version": "2021-12-02"}
    query = sorted(parse_qsl(split.query, keep_blank_values=True))
    plain = ["content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"]
    plain += ["if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"]
    length = {"content-length": str(len(body))} if body else {}
    text = "\n".join(
        [
            method,
            *((signed | length).get(name, "") for name in plain),
            *(f"{name}:{signed[name]}" for name in sorted(signed) if name.startswith("x-ms-")),
            # The account stands twice where the host does not name it, as on this machine.
            f"/{account}{split.path}",
            *(f"{name}:{unquote(value)}" for name, value in query),
        ]
    )
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
    return signed | {"authorization": f"SharedKey {account}:{signature}"}
