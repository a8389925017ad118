"""Which error is meant by the answer of a store?

The library has few classes of exceptions; status, code and cause are in their texts.
"""

import re

from ...errors import (
    ConfigurationError,
    DataError,
    InputOutputError,
    NoInputError,
    PermissionDeniedError,
    PruneError,
    UnavailableError,
)
from ..remote.retries import TransientError, unavailable

THROTTLED = (408, 425, 429)  # and everything from 500 on
_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TRIES = re.compile(r"after (\d+) retries")
_ELAPSED = re.compile(r"elapsed: ([\d.]+)(s|ms)")
# Codes of S3, Google Cloud Storage and Azure that mean: these credentials are not accepted.
_CREDENTIALS = {
    "AuthFailure",
    "AuthenticationFailed",
    "AuthenticationRequired",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidSecurity",
    "InvalidToken",
    "NoAuthenticationInformation",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_BUCKET_ABSENT = ("NoSuchBucket", "ContainerNotFound")
_WRONG_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
# Causes of a failed connection, by words of their description, and how a message calls them.
_CAUSES = (
    ("ConnectionRefused", "connection refused"),
    ("ConnectionReset", "connection reset"),
    ("ConnectionAborted", "connection reset"),
    ("BrokenPipe", "connection reset"),
    ("IncompleteMessage", "connection closed before the answer was complete"),
    ("dns error", "the name of the host is not known"),
    ("TimedOut", "no answer in time"),
    ("certificate", "the certificate is not accepted"),
    ("kind: Body", "connection closed before the answer was complete"),
    ("UnexpectedEof", "connection closed before the answer was complete"),
)
# Addresses that are asked for credentials where no other place has any.
_METADATA_SERVICES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "fd00:ec2::254")


class BucketAbsentError(NoInputError):
    """There is no such bucket."""


class ChangedError(DataError):
    """An object is not the one that it was when the run began."""


def failure_of(error: Exception, url: str, origin: str) -> PruneError | TransientError:
    """The error to raise for an exception of the library, about the object at `url`.

    `origin` says where the credentials came from, or where they were looked for.
    """
    text = str(error)
    match = _STATUS.search(text)
    if match is None:
        return _unanswered(text, url, origin)
    status = int(match[1])
    code = _CODE.search(text)
    name = code[1] if code else match[2].strip()
    if any(service in text for service in _METADATA_SERVICES):
        return _no_credentials(url, origin)
    if status >= 500 or status in THROTTLED:
        return _Transient(f"the store answered {status} {name}", text)
    return _refusal(status, name, url, origin)


def misconfigured(error: Exception, url: str) -> PruneError:
    """The error for settings of which the library makes no client, such as one half of a pair of keys."""
    reason = str(error).split("\n", 1)[0]
    if "Missing" in reason and "Key" in reason:
        return PermissionDeniedError(f"incomplete credentials in the environment ({reason})", place=url)
    return ConfigurationError(reason, place=url, remedy="see the variables that the manual lists")


def _refusal(status: int, name: str, url: str, origin: str) -> PruneError:
    """The error for an answer that will be the same next time."""
    if name in _WRONG_REGION or status in (301, 307):
        remedy = "name its region in AWS_REGION"
        return ConfigurationError(f"the bucket is in another region ({name})", place=url, remedy=remedy)
    if name in _CREDENTIALS or status == 401:
        fault = f"the credentials were not accepted ({name}); they came from {origin}"
        return PermissionDeniedError(fault, place=url)
    if status == 403:
        return PermissionDeniedError(f"permission denied ({name}), with {origin}", place=url)
    if name in _BUCKET_ABSENT:
        return BucketAbsentError("no such bucket", place=url)
    if status == 404:
        return NoInputError("no such object", place=url)
    # 416: a range behind the end. Ranges are cut to the size that the object had.
    if status in (412, 416):
        return ChangedError("changed while it was read", place=url, remedy="run again")
    return InputOutputError(f"the store refused the request: {status} {name}", place=url)


def _unanswered(text: str, url: str, origin: str) -> PruneError | TransientError:
    """The error for an exception without the answer of a server."""
    if any(service in text for service in _METADATA_SERVICES) or "MissingCredentials" in text:
        return _no_credentials(url, origin)
    if "non-partial" in text or "NotPartial" in text:
        fault = "the server ignores the range of a request, so it cannot be read from"
        return UnavailableError(fault, place=url)
    if "RequestedRange" in text or "content-range" in text.lower():
        return UnavailableError("the server sent another range than was asked for", place=url)
    if "BadScheme" in text or "RelativeUrlWithoutBase" in text:
        return ConfigurationError("the address of the server is not a URL", place=url)
    for words, cause in _CAUSES:
        if words in text:
            return _Transient(cause, text)
    # "Generic S3 error: Error performing GET http://... in 2 s - HTTP error: error sending request"
    return _Transient(text.split("\n", 1)[0].rpartition(" - ")[2][:300], text)


def _no_credentials(url: str, origin: str) -> PermissionDeniedError:
    fault = f"no credentials: looked for in {origin}"
    return PermissionDeniedError(fault, place=url, remedy="--no-sign-request reads public buckets")


class _Transient(TransientError):
    """A transient failure, and the text of the exception, which says how often the library tried."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.text = text


def spent(error: TransientError, url: str) -> UnavailableError:
    """The failure of a request that the library repeated itself until its patience was spent."""
    text = getattr(error, "text", "")
    retries = _TRIES.search(text)
    tries = 1 + int(retries[1]) if retries else 1
    return unavailable(url, str(error), tries, _elapsed(text))


def _elapsed(text: str) -> float:
    """Seconds from the first try to the last, by the text of an exception; 0 if it does not say."""
    match = _ELAPSED.search(text)
    if match is None:
        return 0.0
    return float(match[1]) / (1000 if match[2] == "ms" else 1)
