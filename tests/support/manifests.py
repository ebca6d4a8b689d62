"""The manifests of deploy/k8s as kustomize renders them, and the parts of them that tests look at.

Needs kubectl, which works without a cluster here; where there is none, the test is skipped.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, load_config

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
ON_VOLUME = ("base", "overlays/example", "overlays/example-once")
POSTGRES = "overlays/example-postgres"
SHARDED = ("overlays/example-sharded", "overlays/example-sharded-once")
IN_POSTGRES = (POSTGRES, *SHARDED)
RENDERED = (*ON_VOLUME, *IN_POSTGRES)
# What may be applied by a person: with a namespace, and an image that can be pulled.
FINISHED = RENDERED[1:]
# What Kubernetes gives the first pod of an Indexed Job; and the Job, by the downward API.
FIRST_POD = {"JOB_COMPLETION_INDEX": "0", "RETL_JOB": "0b5e-uid"}

Document = dict[str, Any]


@cache
def rendered(folder: str) -> tuple[Document, ...]:
    """All documents of a folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(K8S / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def one(folder: str, kind: str, name: str = "") -> Document:
    found = [
        each
        for each in rendered(folder)
        if each["kind"] == kind and each["metadata"]["name"].startswith(name)
    ]
    assert len(found) == 1, (folder, kind, name)
    return found[0]


def job_spec(folder: str) -> Document:
    return copy.deepcopy(one(folder, "CronJob")["spec"]["jobTemplate"]["spec"])


def pod(folder: str) -> Document:
    spec: Document = job_spec(folder)["template"]["spec"]
    return spec


def container(folder: str) -> Document:
    (only,) = pod(folder)["containers"]
    return dict(only)


def env(folder: str) -> dict[str, str]:
    return dict(one(folder, "ConfigMap", "retl-env")["data"])


def config(folder: str, tmp_path: Path) -> Config:
    """The configuration as the pod would load it."""
    file = tmp_path / "retl.yml"
    text = one(folder, "ConfigMap", "retl-config")["data"]["retl.yml"]
    mounted = tmp_path / "state" / "url"
    mounted.parent.mkdir(exist_ok=True)
    mounted.write_text("postgresql://retl:k@postgres/retl\n", encoding="utf-8")
    file.write_text(text.replace("/secrets/", f"{tmp_path}/"), encoding="utf-8")
    secret = {"CUSTOMERIO_API_KEY": "k", "BIGQUERY_PROJECT": "p"}
    given = FIRST_POD if folder in SHARDED else {}
    return load_config(file, secret | env(folder) | given)
