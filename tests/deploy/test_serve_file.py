"""`deploy/serve.yaml` is a configuration of Ray Serve, for the application that is there."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from mrkd_ray.serve.settings import Settings

FILE = Path(__file__).parents[2] / "deploy" / "serve.yaml"


@pytest.fixture
def loaded() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_ray_takes_it_and_its_arguments_are_known(loaded: dict[str, Any]) -> None:
    (application,) = ServeDeploySchema.model_validate(loaded).applications
    module, _, name = application.import_path.partition(":")
    builder = getattr(importlib.import_module(module), name)
    (taken,) = inspect.signature(builder).parameters.values()
    assert taken.annotation is Settings  # Ray makes it of the arguments
    settings = Settings.model_validate(application.args)
    built = builder(settings.model_copy(update={"token_file": None}))
    named = {each.name: each for each in application.deployments}
    nodes, there = [built], set()
    while nodes:
        deployment = nodes.pop()._bound_deployment
        there.add(deployment.name)
        nodes += [each for each in deployment.init_args if hasattr(each, "_bound_deployment")]
    assert set(named) == there == {"front", "model"}
    assert named["model"].max_queued_requests == settings.queue


def test_who_can_reach_it_needs_a_token(loaded: dict[str, Any]) -> None:
    assert loaded["http_options"]["host"] == "0.0.0.0"
    assert loaded["applications"][0]["args"]["token_file"]


def unknown(found: dict[str, Any]) -> set[str]:
    """Fields that Ray would leave out without a word."""
    (application,) = found["applications"]
    lacking = {*found} - {*ServeDeploySchema.model_fields}
    lacking |= {*found["http_options"]} - {*HTTPOptionsSchema.model_fields}
    lacking |= {*application} - {*ServeApplicationSchema.model_fields}
    for each in application["deployments"]:
        lacking |= {*each} - {*DeploymentSchema.model_fields}
        lacking |= {*each.get("autoscaling_config", ())} - {*AutoscalingConfig.model_fields}
    return lacking


def test_it_has_no_field_that_nobody_reads(loaded: dict[str, Any]) -> None:
    assert unknown(loaded) == set()
    loaded["applications"][0]["deployments"][0]["num_replica"] = 2
    assert unknown(loaded) == {"num_replica"}
