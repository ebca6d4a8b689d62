"""The Indexed Job: N in one place, what each exit code does, and what tells the shards apart."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import K8S, POSTGRES, SHARDED, config, container, env, job_spec, pod

from pipeline import errors
from pipeline.cli.exits import END_INTERNAL, END_INTERRUPTED, END_USAGE

EXAMPLE = SHARDED[0]


@pytest.mark.parametrize("folder", SHARDED)
def test_as_many_pods_as_shards_all_at_once(folder: str) -> None:
    spec = job_spec(folder)
    shards = env(folder)["RETL_SHARDS"]
    assert spec["completionMode"] == "Indexed"
    # Integers, though they come from a string.
    assert [spec["completions"], spec["parallelism"]] == [int(shards)] * 2


def render(folder: Path) -> subprocess.CompletedProcess[str]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def copied(tmp_path: Path, old: str, new: str) -> Path:
    """A person's copy of the example, with one line of it changed."""
    shutil.copytree(K8S, tmp_path / "k8s")
    mine = tmp_path / "k8s" / EXAMPLE
    file = mine / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    return mine


def test_the_number_of_shards_is_changed_in_one_place(tmp_path: Path) -> None:
    done = render(copied(tmp_path, "RETL_SHARDS=4", "RETL_SHARDS=16"))
    (cron,) = (each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "CronJob")
    spec = cron["spec"]["jobTemplate"]["spec"]
    assert spec["completions"] == spec["parallelism"] == 16


def test_a_number_of_shards_that_is_forgotten_is_no_single_pod(tmp_path: Path) -> None:
    done = render(copied(tmp_path, "      - RETL_SHARDS=4\n", ""))
    assert done.returncode != 0
    assert "data.RETL_SHARDS" in done.stderr


def test_all_pods_of_a_job_know_it_by_one_name_that_no_other_job_has() -> None:
    (job,) = container(EXAMPLE)["env"]
    label = "metadata.labels['batch.kubernetes.io/controller-uid']"
    assert job == {"name": "RETL_JOB", "valueFrom": {"fieldRef": {"fieldPath": label}}}
    assert "RETL_JOB" not in env(EXAMPLE)
    # Kubernetes gives the index by itself; what stood there would win over it.
    assert "JOB_COMPLETION_INDEX" not in env(EXAMPLE)


def rules() -> list[dict[str, Any]]:
    return list(job_spec(EXAMPLE)["podFailurePolicy"]["rules"])


def test_a_drained_pod_costs_no_try_whatever_its_exit_code() -> None:
    assert rules()[0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }


def test_exit_codes_end_the_job_or_the_index_or_are_tried_again() -> None:
    said = {}
    for rule in rules()[1:]:
        codes = rule["onExitCodes"]
        assert (codes["containerName"], codes["operator"]) == (container(EXAMPLE)["name"], "In")
        said |= dict.fromkeys(codes["values"], rule["action"])
    # The same for every shard; and what each finds out by itself.
    assert said == {
        END_USAGE: "FailJob",
        errors.ConfigError.exit_code: "FailJob",
        errors.UnusableState.exit_code: "FailJob",
        errors.CredentialsError.exit_code: "FailJob",
        errors.TooManyRejected.exit_code: "FailIndex",
    }
    again = {END_INTERNAL, END_INTERRUPTED, errors.ShardHeld.exit_code, errors.LeaseError.exit_code}
    assert not again & set(said)


def test_every_index_has_tries_of_its_own() -> None:
    spec = job_spec(EXAMPLE)
    assert spec["backoffLimitPerIndex"] == 5  # docs/scaling.md says what that means
    # Either would end the others' work for the failures of one.
    assert not {"backoffLimit", "maxFailedIndexes"} & set(spec)
    # The API server refuses the others with any other.
    assert pod(EXAMPLE)["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"


def test_the_shards_of_one_job_are_spread_over_nodes_and_never_kept_waiting_for_it() -> None:
    (spread,) = pod(EXAMPLE)["topologySpreadConstraints"]
    labels = job_spec(EXAMPLE)["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert spread["matchLabelKeys"] == ["batch.kubernetes.io/controller-uid"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_nothing_else_differs_from_the_pod_with_its_state_in_postgres() -> None:
    ours, plain = pod(EXAMPLE), pod(POSTGRES)
    del ours["topologySpreadConstraints"]
    for spec in (ours, plain):
        del spec["volumes"]  # a ConfigMap's name has the hash of what is in it
        (only,) = spec["containers"]
        for key in ("args", "env", "envFrom"):
            only.pop(key, None)
    assert ours == plain


@pytest.mark.parametrize("folder", SHARDED)
def test_the_sync_can_be_shared_by_streams(folder: str, tmp_path: Path) -> None:
    (sync,) = config(folder, tmp_path).syncs.values()
    assert not sync.is_ordered
    assert "ORDER BY" not in str(sync.query)
