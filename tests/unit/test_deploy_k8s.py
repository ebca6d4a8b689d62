"""The manifests as kustomize renders them: schemas, and rules between fields that none knows."""

from __future__ import annotations

import copy
from pathlib import Path

import kubernetes_validate
import pytest
from manifests import (
    FINISHED,
    IN_POSTGRES,
    ON_VOLUME,
    POSTGRES,
    RENDERED,
    SHARDED,
    config,
    container,
    env,
    job_spec,
    one,
    pod,
    rendered,
)

from pipeline import errors
from pipeline.cli.exits import END_INTERNAL, END_USAGE


@pytest.mark.parametrize("version", ["1.29.0", "1.34.0"])
@pytest.mark.parametrize("folder", RENDERED)
def test_every_document_is_valid_and_has_no_unknown_field(folder: str, version: str) -> None:
    for document in rendered(folder):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_would_find_an_unknown_field() -> None:
    document = copy.deepcopy(one("base", "CronJob"))
    document["spec"]["jobTemplate"]["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.34.0", strict=True)


@pytest.mark.parametrize("folder", RENDERED)
def test_what_is_there(folder: str) -> None:
    kinds = sorted(each["kind"] for each in rendered(folder))
    common = ["ConfigMap", "ConfigMap", "CronJob", "ServiceAccount"]
    volume = ["PersistentVolumeClaim"]
    more = {
        "base": volume,
        "overlays/example": [*volume, "Namespace"],
        "overlays/example-once": [*volume, "Job", "Namespace"],
        POSTGRES: ["Namespace"],
        SHARDED[0]: ["Namespace"],
        SHARDED[1]: ["Job", "Namespace"],
    }
    assert kinds == sorted(common + more[folder])


@pytest.mark.parametrize("folder", RENDERED)
def test_no_secret_is_in_the_files(folder: str) -> None:
    assert not [each for each in rendered(folder) if each["kind"] == "Secret"]
    assert not {"CUSTOMERIO_API_KEY"} & set(env(folder))


@pytest.mark.parametrize("folder", RENDERED)
def test_the_configuration_loads_as_the_pod_would_load_it(folder: str, tmp_path: Path) -> None:
    loaded = config(folder, tmp_path)
    assert loaded.syncs
    assert loaded.metrics.port == container(folder)["ports"][0]["containerPort"]
    assert loaded.log.format == "json"


@pytest.mark.parametrize("folder", RENDERED)
def test_the_grace_period_is_longer_than_the_drain(folder: str, tmp_path: Path) -> None:
    drain = config(folder, tmp_path).drain
    assert drain + 5 <= pod(folder)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("folder", RENDERED)
def test_the_buffers_fit_into_the_memory(folder: str, tmp_path: Path) -> None:
    loaded = config(folder, tmp_path)
    most = max(len(sync.destinations) for sync in loaded.syncs.values())
    units = {"Mi": 2**20, "Gi": 2**30}
    limit = container(folder)["resources"]["limits"]["memory"]
    assert 400e6 + most * loaded.send.buffer_bytes < int(limit[:-2]) * units[limit[-2:]]


@pytest.mark.parametrize("folder", ON_VOLUME)
def test_state_lies_on_the_volume_that_lasts(folder: str, tmp_path: Path) -> None:
    path = Path(config(folder, tmp_path).state.removeprefix("sqlite:///"))
    mounts = {each["mountPath"]: each["name"] for each in container(folder)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(folder)["volumes"]}
    claim = volumes[mounts[str(path.parent)]]["persistentVolumeClaim"]["claimName"]
    assert claim == one(folder, "PersistentVolumeClaim")["metadata"]["name"]
    assert one(folder, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]


@pytest.mark.parametrize("folder", IN_POSTGRES)
def test_state_in_postgres_comes_from_a_mounted_secret_and_needs_no_volume(
    folder: str, tmp_path: Path
) -> None:
    loaded = config(folder, tmp_path)
    assert loaded.state_place == "postgresql://postgres/retl"
    assert "state: ${file:/secrets/state/url}\n" in str(
        one(folder, "ConfigMap", "retl-config")["data"]["retl.yml"]
    )
    mounts = {each["mountPath"]: each for each in container(folder)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(folder)["volumes"]}
    mount = mounts["/secrets/state"]
    assert mount["readOnly"] is True
    assert volumes[mount["name"]]["secret"] == {"secretName": "retl-state", "defaultMode": 0o440}
    assert not [each for each in volumes.values() if "persistentVolumeClaim" in each]
    assert {each["name"] for each in mounts.values()} == set(volumes)


@pytest.mark.parametrize("folder", RENDERED)
def test_the_pod_is_restricted(folder: str) -> None:
    security = pod(folder)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(folder)["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["privileged"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod(folder)["automountServiceAccountToken"] is False
    assert one(folder, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod(folder)["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(folder))
    assert not any("hostPath" in volume for volume in pod(folder)["volumes"])


@pytest.mark.parametrize("folder", RENDERED)
def test_what_is_named_is_there(folder: str) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in rendered(folder)}
    specs = [each["spec"] for each in rendered(folder) if each["kind"] == "Job"]
    for spec in [job_spec(folder), *specs]:
        inner = spec["template"]["spec"]
        assert ("ServiceAccount", inner["serviceAccountName"]) in names
        for source in inner["containers"][0]["envFrom"]:
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
            else:
                assert source["secretRef"] == {"name": "retl-secrets"}
        for volume in inner["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names


@pytest.mark.parametrize("folder", FINISHED)
def test_all_lies_in_one_namespace(folder: str) -> None:
    (space,) = (each for each in rendered(folder) if each["kind"] == "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {each["metadata"].get("namespace") for each in rendered(folder) if each is not space}
    assert others == {space["metadata"]["name"]}


def test_exit_codes_decide_what_is_tried_again() -> None:
    spec = job_spec("base")
    ignore, fail = spec["podFailurePolicy"]["rules"]
    assert ignore == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert fail["action"] == "FailJob"
    codes = fail["onExitCodes"]
    assert (codes["containerName"], codes["operator"]) == (container("base")["name"], "In")
    # What trying again can't mend, by the errors themselves.
    for_good = {
        END_USAGE,
        errors.ConfigError.exit_code,
        errors.CredentialsError.exit_code,
        errors.TooManyRejected.exit_code,
    }
    passing = {
        0,
        END_INTERNAL,
        errors.SourceError.exit_code,
        errors.DestinationError.exit_code,
        errors.StateError.exit_code,
    }
    assert set(codes["values"]) == for_good
    assert not for_good & passing
    # The API server refuses the policy with any other.
    assert pod("base")["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimit"] >= 1


def test_one_run_at_a_time_on_a_schedule() -> None:
    spec = one("base", "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] >= 10
    assert spec["timeZone"] == "Etc/UTC"
    assert spec["suspend"] is False
    assert spec["successfulJobsHistoryLimit"] >= 1
    assert spec["failedJobsHistoryLimit"] >= 1


@pytest.mark.parametrize("folder", RENDERED)
def test_it_runs_everything_with_the_images_entrypoint(folder: str) -> None:
    # The rate limit is shared by the shards of one sync: two at once would have it twice.
    which = "users" if folder in SHARDED else "--all"
    assert container(folder)["args"] == ["run", which]
    assert "command" not in container(folder)
    assert container(folder)["image"].endswith("retl:0.1.0")


@pytest.mark.parametrize("folder", RENDERED)
def test_memory_is_bounded_and_cpu_is_not(folder: str) -> None:
    resources = container(folder)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert set(resources["limits"]) == {"memory", "ephemeral-storage"}


@pytest.mark.parametrize("folder", RENDERED)
def test_metrics_can_be_found(folder: str) -> None:
    notes = job_spec(folder)["template"]["metadata"]["annotations"]
    (port,) = container(folder)["ports"]
    assert port["name"] == "metrics"
    assert notes["prometheus.io/port"] == str(port["containerPort"])


@pytest.mark.parametrize("folder", ["overlays/example", SHARDED[0]])
def test_the_job_that_runs_now_is_the_cronjobs(folder: str) -> None:
    once = f"{folder}-once"
    assert one(once, "Job")["spec"] == job_spec(once)
    assert job_spec(once) == job_spec(folder)
