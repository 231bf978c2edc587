from typing import Any

import pytest
import timm
import torch

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks import catalogue as networks
from mrkd_ray.networks import timm_models


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet18.a1_in1k", "efficientnet_b0", "convnext_atto", "regnetx_002", "nfnet_l0"],
)
def test_builds_by_name_with_the_classifier_last(name: str) -> None:
    with torch.device("meta"):
        module, report = networks.build(f"timm.{name}", 7, windows=(64, 150))
        assert module(torch.zeros(2, 3, 84, 150)).shape == (2, 7)
    assert report.source == "none"
    assert networks.classifier_layer(module) == module.pretrained_cfg["classifier"]


def test_windows_that_do_not_fit_are_refused() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"vit_tiny.* 64 x 150"):
        networks.build("timm.vit_tiny_patch16_224", 7, windows=(64, 150))


def test_an_unknown_name_lists_the_nearest_of_timms_only() -> None:
    with pytest.raises(UserError, match=r"'timm.resnet1'.*Nearest: timm\.resnet") as error:
        networks.find("timm.resnet1")
    assert len(str(error.value)) < 300


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[timm\]'"):
        networks.find("timm.resnet18")
    assert not timm_models.known("resnet18")


def test_weights_are_asked_for_only_where_timm_has_them() -> None:
    assert networks.default_weights("timm.resnet18") == "imagenet"
    without = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    assert networks.default_weights(f"timm.{without}") == "none"


def test_imagenet_is_timms_download(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def downloaded(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        module: torch.nn.Module = create(name, **options)
        if pretrained:
            for tensor in module.state_dict().values():
                tensor.fill_(3)
        return module

    monkeypatch.setattr(timm, "create_model", downloaded)
    module, report = networks.build("timm.resnet18", 5, "imagenet")
    assert report.complete
    assert report.source == "timm.resnet18.a1_in1k"
    assert report.replaced == ("fc.weight", "fc.bias")
    assert (module.state_dict()["conv1.weight"] == 3).all()
    assert (module.state_dict()["fc.weight"] != 3).all()


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        if pretrained:
            raise ConnectionError("no network\nand a long story")
        module: torch.nn.Module = create(name, **options)
        return module

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"'timm.resnet18' \(no network\).*weights: PATH"):
        networks.build("timm.resnet18", 5, "imagenet")
