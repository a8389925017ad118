"""Which credentials are sent to a store? Those that the cloud's own tools would find.

The library reads the environment and asks the metadata service of a cloud machine. Profiles, SSO and
everything else in ~/.aws is read by boto3, where it is installed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import ConfigurationError, PermissionDeniedError
from ..base import UNSIGNED
from .urls import Bucket

REFRESHED = timedelta(minutes=15)  # after which boto3 is asked again, and renews what is about to expire
_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_AZURE = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_CLIENT_ID",
)


@dataclass(frozen=True)
class Keys:
    """The keys of AWS themselves; `region` is empty unless a profile names one."""

    access: str
    secret: str
    token: str = ""
    region: str = ""


@dataclass(frozen=True)
class Credentials:
    """Options of the library's store, and for messages the place where the credentials are from.

    `keys` returns the keys of AWS. It is None where only the library knows them.
    """

    origin: str
    options: dict[str, Any] = field(default_factory=dict)
    keys: Callable[[], Keys] | None = None


def chosen(bucket: Bucket) -> Credentials:
    """The credentials for a bucket. Raises PermissionDeniedError if there are none."""
    if os.environ.get(UNSIGNED):
        # Keys, too: the library complains of half a pair in the environment even if it signs nothing.
        keys = {"access_key_id": "none", "secret_access_key": "none"} if bucket.scheme == "s3" else {}
        return Credentials("--no-sign-request", {"skip_signature": True, **keys})
    if bucket.scheme == "gs":
        return Credentials("GOOGLE_APPLICATION_CREDENTIALS, gcloud's login and the metadata service")
    if bucket.scheme == "az":
        return Credentials(_first(_AZURE) or "AZURE_STORAGE_* and the metadata service")
    return _aws()


def _aws() -> Credentials:
    # A profile that is named goes before keys in the environment, as in the AWS tools.
    profile = os.environ.get("AWS_PROFILE", "")
    variable = _first((*_ENVIRONMENT, *_CONTAINER))
    if variable and not profile:
        return Credentials(f"the variable {variable}", keys=_keys_of_environment())
    try:
        import boto3.session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return _without_boto3(profile)
    try:
        session = boto3.session.Session()
        found = session.get_credentials()
    except BotoCoreError as error:
        raise ConfigurationError(str(error).rstrip("."), remedy="see ~/.aws/config and AWS_PROFILE") from None
    if found is None:
        fault = "no credentials for s3: looked in AWS_ACCESS_KEY_ID, ~/.aws and the metadata service"
        raise PermissionDeniedError(fault, remedy="set them, or --no-sign-request for public buckets")
    region = {"region": session.region_name} if session.region_name else {}
    origin = f"boto3 ({found.method}{', profile ' + profile if profile else ''})"
    return Credentials(
        origin,
        {"credential_provider": _provider(found), **region},
        lambda: _keys(found, session.region_name or ""),
    )


def _keys(found: Any, region: str) -> Keys:
    frozen = found.get_frozen_credentials()
    return Keys(frozen.access_key, frozen.secret_key, frozen.token or "", region)


def _keys_of_environment() -> Callable[[], Keys] | None:
    access = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        return None
    keys = Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
    return lambda: keys


def _without_boto3(profile: str) -> Credentials:
    remedy = "pip install boto3"
    if profile:
        fault = f"AWS_PROFILE={profile} is read by boto3, which is not installed"
        raise ConfigurationError(fault, remedy=remedy)
    if os.path.exists(os.path.expanduser("~/.aws")):
        return Credentials(f"AWS_ACCESS_KEY_ID and the metadata service (~/.aws needs boto3: {remedy})")
    return Credentials("AWS_ACCESS_KEY_ID and the metadata service")


def _provider(found: Any) -> Callable[[], dict[str, Any]]:
    """A function that the library calls for keys, and again when these expire."""

    def keys() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + REFRESHED,
        }

    return keys


def _first(variables: tuple[str, ...]) -> str:
    """The first of these variables that is set; "" if none is."""
    return next((name for name in variables if os.environ.get(name)), "")
