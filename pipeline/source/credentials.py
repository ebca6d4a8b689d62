"""Who we are to Google: a key, Workload Identity or what the environment gives; and whom we act as.

The kinds are told apart here and not by Google's generic loader, which takes any kind from
anywhere. No key, and no message that may quote one, leaves this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import google.auth
from google.auth import aws, identity_pool, impersonated_credentials, pluggable
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account

from pipeline.errors import CredentialsError

_SCOPES = ("https://www.googleapis.com/auth/bigquery",)
# Acting as another account is asked of IAM, which takes no narrower scope.
_IAM_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_AWS = "urn:ietf:params:aws:token-type:aws4_request"


def load(text: str | None, impersonate: str | None = None) -> Credentials:
    """Credentials for BigQuery; nothing is asked of the network yet.

    text: the JSON of a service account's key or of an external account (Workload Identity);
    None: Application Default Credentials. impersonate: e-mail address of the service account to
    act as. Raises CredentialsError.
    """
    scopes = _IAM_SCOPES if impersonate else _SCOPES
    try:
        found = _given(json.loads(text), scopes) if text else _default(scopes)
    except (GoogleAuthError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The messages of these may quote the key: only the type is told.
        raise CredentialsError(
            f"No usable Google credentials ({type(error).__name__}). Set `credentials` of the "
            "source to a service account key or a Workload Identity configuration "
            "(`${file:/path/key.json}`), or provide Application Default Credentials "
            "(`gcloud auth application-default login`, Workload Identity)."
        ) from None
    if impersonate is None:
        return found
    acting: Credentials = impersonated_credentials.Credentials(
        source_credentials=found, target_principal=impersonate, target_scopes=list(_SCOPES)
    )
    return acting


def _default(scopes: tuple[str, ...]) -> Credentials:
    found: Credentials
    found, _ = google.auth.default(scopes=scopes)
    return found


def _given(info: Mapping[str, Any], scopes: tuple[str, ...]) -> Credentials:
    kind = info["type"]
    found: Credentials
    if kind == "service_account":
        found = service_account.Credentials.from_service_account_info(info, scopes=scopes)
        return found
    if kind != "external_account":
        raise ValueError(kind)
    if info.get("subject_token_type") == _AWS:
        found = aws.Credentials.from_info(info, scopes=scopes)
    elif "executable" in info["credential_source"]:
        # Runs nothing unless GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 allows it.
        found = pluggable.Credentials.from_info(info, scopes=scopes)
    else:
        found = identity_pool.Credentials.from_info(info, scopes=scopes)
    return found
