"""`deploy/kuberay.yaml` has the structure of a RayJob, and the versions of pyproject.toml.

The fields are those of KubeRay's API `ray.io/v1` (its `rayjob_types.go` and `raycluster_types.go`);
Kubernetes drops what it does not know, so a misspelled one would be dropped without a word.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "kuberay.yaml"
JOB = {
    *("entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
    *("activeDeadlineSeconds", "backoffLimit", "runtimeEnvYAML", "submissionMode", "suspend"),
}
CLUSTER = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
    *("headGroupSpec", "workerGroupSpecs"),
}
AUTOSCALER = {"idleTimeoutSeconds", "upscalingMode", "resources", "env"}
GROUP = {"rayStartParams", "template"}
HEAD = GROUP | {"serviceType", "enableIngress"}
WORKER = GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"}
POD = {"containers", "volumes", "affinity", "tolerations", "nodeSelector"}
CONTAINER = {"name", "image", "env", "resources", "volumeMounts"}


@pytest.fixture
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def unknown(job: dict[str, Any]) -> set[str]:
    """Fields that nobody reads."""
    cluster = job["spec"]["rayClusterSpec"]
    found = {*job} - {"apiVersion", "kind", "metadata", "spec"}
    found |= {*job["spec"]} - JOB | {*cluster} - CLUSTER
    found |= {*cluster["autoscalerOptions"]} - AUTOSCALER | {*cluster["headGroupSpec"]} - HEAD
    for group in cluster["workerGroupSpecs"]:
        found |= {*group} - WORKER
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        found |= {*pod} - POD
        for container in pod["containers"]:
            found |= {*container} - CONTAINER
    return found


def test_it_is_a_ray_job(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert unknown(job) == set()
    assert job["spec"]["shutdownAfterJobFinishes"] is True  # nothing is paid for after it


@pytest.mark.parametrize("parent", ["spec", "rayClusterSpec", "workerGroupSpecs", "containers"])
def test_a_misspelled_field_is_seen(job: dict[str, Any], parent: str) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    worker = cluster["workerGroupSpecs"][0]
    places = {"spec": job["spec"], "rayClusterSpec": cluster, "workerGroupSpecs": worker}
    places["containers"] = worker["template"]["spec"]["containers"][0]
    places[parent]["mispelled"] = 1
    assert unknown(job) == {"mispelled"}


def test_pods_agree_with_each_other(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], worker)]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
        for path in re.findall(r"--(?:data|cache|output) (\S+)", job["spec"]["entrypoint"]):
            assert path.startswith(f"{mounted['mrkd']}/")
    head, other = (pod["containers"][0] for pod in pods)
    assert (head["image"], head["env"]) == (other["image"], other["env"])
    assert "nvidia.com/gpu" not in head["resources"]["limits"]


def test_versions_are_those_of_the_project(job: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (d for d in project["dependencies"] if d.startswith("ray["))
    series = pinned.partition("==")[2].removesuffix("*")  # 2.60.
    assert job["spec"]["rayClusterSpec"]["rayVersion"].startswith(series)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    version, python = re.findall(r"^FROM rayproject/ray:([\d.]+)-py(\d+)-gpu$", dockerfile, re.M)[0]
    assert version == job["spec"]["rayClusterSpec"]["rayVersion"]
    least = project["requires-python"].removeprefix(">=").replace(".", "")
    assert int(python) >= int(least)
    copied = re.findall(r"^COPY --chown=ray (.+) \S+$", dockerfile, re.M)
    for path in " ".join(copied).split():
        assert (ROOT / path).exists() or path == "deploy/versions.txt"
