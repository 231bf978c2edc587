import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks import catalogue as networks
from mrkd_ray.networks import registry
from mrkd_ray.networks.catalogue import (
    build,
    default_weights,
    describe,
    find,
    initial_weights,
    known_networks,
)
from mrkd_ray.networks.mobilenets import WIDTHS
from tests.conftest import SHARED

WEIGHTS = SHARED / "weights"
SQUEEZENET = WEIGHTS / "squeezenet1_0-imagenet.pth"
MOBILENET = WEIGHTS / "mobilenet_v2-features-imagenet.pth"
real_weights = pytest.mark.skipif(
    not WEIGHTS.exists(), reason="the real weights of ../shared/weights are not there"
)
SMALL = ("resnet_small", "vgg_small")  # leaf_small takes samples: test_filterbank.py

# The cheapest network of each of torchvision's families that takes windows.
FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "wide_resnet50_2",
]


def logits(module: nn.Module, bins: int, batch: int = 2) -> torch.Tensor:
    device = next(module.parameters()).device
    with torch.no_grad():
        result: torch.Tensor = module.eval()(torch.randn(batch, 3, bins, 150, device=device))
    return result


def build_for_shapes(name: str) -> nn.Module:
    """Build without memory for the weights, which is quick; RegNets compute their sizes on them."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        module, report = build(name, 7)
    assert report.source == "none"
    return module


def test_vgg_fused_sees_what_is_stacked_as_channels() -> None:
    module, _ = build("vgg_fused", 4, windows=(192, 150))
    assert isinstance(module, nn.Sequential)
    windows = torch.randn(2, 3, 192, 9)
    channels = module[0](windows)
    for which in range(3):
        for delta in range(3):
            own = windows[:, delta, 64 * which : 64 * (which + 1)]
            torch.testing.assert_close(channels[:, 3 * delta + which], own)
    assert module[1].in_channels == 9
    assert logits(module, 192).shape == (2, 4)
    with pytest.raises(UserError, match="cannot take windows of 64 x 150"):
        build("vgg_fused", 4, windows=(64, 150))


@pytest.mark.parametrize("name", FAMILIES)
def test_builds_each_family_of_torchvision(name: str) -> None:
    module = build_for_shapes(name)
    assert logits(module, 64).shape == (2, 7)
    layer = module.get_submodule(networks.classifier_layer(module))
    assert 7 in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0))


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("efficientnet_b0", "classifier.1"),
        ("convnext_tiny", "classifier.2"),
        ("mobilenet_v3_small", "classifier.3"),
        ("timm.mobilenetv4_conv_small", "classifier"),
    ],
)
def test_networks_of_today_load_a_file_and_train(
    name: str, classifier: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)  # 1 in 15 draws of MobileNetV4's weights overflowed after a step of 0.1
    stored = build(name, 4)[0].state_dict()
    file = tmp_path / f"{name}.safetensors"
    save_file(stored, file)
    module, report = build(name, 7, initial_weights(name, str(tmp_path)), windows=(64, 150))
    assert report.complete
    assert report.unexpected == ()
    assert report.replaced == (f"{classifier}.weight", f"{classifier}.bias")
    assert all(torch.equal(module.state_dict()[key], stored[key]) for key in report.loaded)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.001)
    nn.functional.cross_entropy(module(torch.randn(2, 3, 64, 150)), torch.tensor([0, 6])).backward()
    optimiser.step()
    assert all(p.grad is not None for p in module.parameters())
    assert logits(module, 84).isfinite().all()


@pytest.mark.parametrize("name", ["resnet101", "vgg19"])
def test_builds_the_networks_of_the_paper(name: str) -> None:
    module = build_for_shapes(name)
    for bins in (64, 84, 128):
        assert logits(module, bins, batch=1).shape == (1, 7)


def test_covers_every_network_of_torchvision() -> None:
    unfit = {"inception", "maxvit", "vit"}  # tested below
    unfit |= {"ast", "leaf"}  # of one representation: tested with what they are built of
    unfit |= {"mn", "linear", "mlp"}  # test_mobilenets.py
    families = {name.split("_")[0].rstrip("0123456789") for name in known_networks()}
    tested = {name.split("_")[0].rstrip("0123456789") for name in FAMILIES}
    assert families - tested <= unfit
    assert not [name for name in known_networks() if "quantized" in name]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("inception_v3", {84, 128}),
        ("maxvit_t", set()),
        ("vit_b_32", set()),
        ("resnet18", {64, 84, 128}),
    ],
)
def test_refuses_windows_that_do_not_fit(name: str, fits: set[int]) -> None:
    with torch.device("meta"):
        module, _ = build(name, 3)
        for bins in (64, 84, 128):
            if bins in fits:
                networks.check_input(module, name, bins, 150)
            else:
                with pytest.raises(UserError, match=rf"{name}.* {bins} x 150"):
                    networks.check_input(module, name, bins, 150)
            assert module.training


def test_build_checks_the_bins_it_is_given() -> None:
    with pytest.raises(UserError, match="cannot take windows of 40 x 150"):
        build("resnet_small", 3, windows=(40, 150))
    with pytest.raises(UserError, match="cannot take windows of 64 x 150"):
        build("vit_b_32", 3, windows=(64, 150))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str) -> None:
    module, report = build(name, 50)
    assert sum(p.numel() for p in module.parameters()) < 500_000
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    for bins in (64, 84, 128):
        assert logits(module, bins).shape == (2, 50)
    assert module.train()(torch.randn(2, 3, 64, 150)).shape == (2, 50)
    assert report.summary() == "weights: none (random)"


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_learn(name: str) -> None:
    """Two classes that differ only in where in the spectrum the noise lies."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 3, 64, 150), torch.arange(32) % 2
    x[y == 0, :, :32] *= 2
    x[y == 1, :, 32:] *= 2
    module, _ = build(name, 2)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[:16]), y[:16]).backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert (module(x[16:]).argmax(1) == y[16:]).float().mean() > 0.9


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return {
            f"{n}.{k}": v
            for n in SMALL
            for k, v in build(n, 4, windows=(64, 150))[0].state_dict().items()
        }

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_unknown_names_and_weights_that_do_not_exist() -> None:
    with pytest.raises(UserError, match=r"'resnett18'. Did you mean 'resnet18'\?.*vgg_small"):
        build("resnett18", 3)
    with pytest.raises(UserError, match="vgg_small"):
        build("vgg_small", 3, "imagenet")
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        build("vgg_small", 3, "gone.pth")


def test_lists() -> None:
    others = {"leaf_small", "vgg_fused", "ast", "resnet101", "vgg19", "...", "timm...."}
    assert {*SMALL, *others, *WIDTHS, "linear", "mlp"} == set(describe())
    assert len(set(known_networks())) == len(known_networks()) > 80
    assert [default_weights(n) for n in ("vgg19", "resnet18", *SMALL)] == [
        *["imagenet"] * 2,
        *["none"] * 2,
    ]
    with pytest.raises(UserError, match="resnet_small"):
        default_weights("resnet_smal")
    with pytest.raises(ValueError, match="registered already"):
        registry.network("vgg_small", description="")(find("vgg_small").builder)


def test_starts_without_torchvision_and_timm() -> None:
    code = (
        "import sys; from mrkd_ray.networks.catalogue import build, describe; "
        "build('vgg_small', 3); describe(); print({'torchvision', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@real_weights
def test_loads_a_whole_file() -> None:
    torch.manual_seed(0)
    module, report = build("squeezenet1_0", 7, SQUEEZENET)
    file = torch.load(SQUEEZENET, weights_only=True)
    state = module.state_dict()
    assert report.replaced == ("classifier.1.weight", "classifier.1.bias")
    assert set(report.loaded) == set(file) - set(report.replaced)
    assert all(torch.equal(state[key], file[key]) for key in report.loaded)
    assert report.complete
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert report.summary() == (
        f"weights: {SQUEEZENET}: 50 tensors loaded; "
        "classifier new (classifier.1.weight, classifier.1.bias)"
    )
    assert logits(module, 64).shape == (2, 7)


@real_weights
def test_takes_a_new_classifier_even_where_the_shape_fits() -> None:
    module, report = build("squeezenet1_0", 1000, SQUEEZENET)
    file = torch.load(SQUEEZENET, weights_only=True)
    assert "classifier.1.weight" in report.replaced
    assert not torch.equal(module.state_dict()["classifier.1.weight"], file["classifier.1.weight"])


@real_weights
def test_loads_a_file_without_a_classifier() -> None:
    module, report = build("mobilenet_v2", 7, str(MOBILENET))
    file = torch.load(MOBILENET, weights_only=True)
    assert report.complete
    assert len(report.loaded) == len(file) == 312
    assert report.replaced == ("classifier.1.weight", "classifier.1.bias")
    assert torch.equal(
        module.state_dict()["features.18.1.running_var"], file["features.18.1.running_var"]
    )


@real_weights
def test_imagenet_weights_come_from_the_cache_of_torch_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints/squeezenet1_0-b66bff10.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(SQUEEZENET.read_bytes())
    module, report = build("squeezenet1_0", 7, "imagenet")
    assert report.source == str(cached)
    assert report.complete
    assert module.state_dict()["features.0.weight"].std() > 0.01
    cached.write_text("no weights")
    with pytest.raises(UserError, match=r"b66bff10\.pth: cannot be read"):
        build("squeezenet1_0", 7, "imagenet")


def test_imagenet_weights_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    expected = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    with pytest.raises(UserError) as error:
        build("resnet18", 7, "imagenet")
    for part in (str(expected), "no network", "weights: none", "weights: PATH"):
        assert part in str(error.value)
    assert not expected.exists()


def test_safetensors_with_faults(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = build("vgg_small", 4)[0].state_dict()
    names = [key for key in file if key.endswith("weight")]
    gone, other_shape = names[1], names[2]
    wanted = tuple(file[other_shape].shape)
    del file[gone]
    file |= {other_shape: torch.zeros(2), "extra": torch.zeros(1)}
    path = tmp_path / "weights.safetensors"
    save_file(file, path)
    module, report = build("vgg_small", 9, path)
    assert report.missing == (gone,)
    assert report.mismatched == ((other_shape, (2,), wanted),)
    assert report.unexpected == ("extra",)
    assert not report.complete
    assert torch.equal(module.state_dict()[names[0]], file[names[0]])
    summary = report.summary()
    assert "\n" not in summary
    for part in (f"1 NOT in the file, random ({gone})", f"[2], not {list(wanted)}", "extra"):
        assert part in summary


def test_names_of_an_old_densenet(tmp_path: Path) -> None:
    file = build("densenet121", 4)[0].state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): file[key] for key in file}
    assert old.keys() != file.keys()
    torch.save(old, tmp_path / "old.pth")
    _, report = build("densenet121", 3, tmp_path / "old.pth")
    assert report.complete
    assert report.unexpected == ()


def test_batch_counters_may_be_absent(tmp_path: Path) -> None:
    file = {k: v for k, v in build("vgg_small", 4)[0].state_dict().items() if "num_b" not in k}
    torch.save(file, tmp_path / "old.pt")
    assert build("vgg_small", 3, tmp_path / "old.pt")[1].complete


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", "text", "cannot be read as .pth"),
        ("a.safetensors", "text", "cannot be read as .safetensors"),
        ("a.bin", "text", r"not one of \.pth, \.pt, \.safetensors"),
        ("a.pth", {"epoch": 3, "state_dict": {"a": torch.zeros(1)}}, "expected a state dict"),
        ("a.pt", {}, "expected a state dict"),
        ("a.pth", {"a": torch.zeros(1), "1.num_batches_tracked": torch.tensor(0)}, "nothing in it"),
    ],
)
def test_refuses_files(tmp_path: Path, name: str, content: object, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        build("vgg_small", 3, path)
    assert str(path) in str(error.value)


@real_weights
def test_refuses_the_file_of_another_network() -> None:
    with pytest.raises(UserError, match=r"nothing in it fits network 'mobilenet_v2'; it has feat"):
        build("mobilenet_v2", 3, SQUEEZENET)


def test_a_folder_of_weights_has_one_file_for_each_network(tmp_path: Path) -> None:
    for name in ("resnet101-5d3b4d8f.pth", "vgg19.safetensors", "vgg19_bn-c79401a0.pth"):
        (tmp_path / name).touch()
    assert initial_weights("resnet101", str(tmp_path)).endswith("resnet101-5d3b4d8f.pth")
    assert initial_weights("vgg19", str(tmp_path)).endswith("vgg19.safetensors")
    assert initial_weights("vgg_small", str(tmp_path)) == "none"
    with pytest.raises(UserError, match=r"one file for 'resnet18'.*found none"):
        initial_weights("resnet18", str(tmp_path))


def test_a_folder_without_weights_is_not_taken_for_random_ones(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match="no weights in this folder"):
        initial_weights("vgg_small", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "asked", "found"),
    [
        ("resnet101", None, "imagenet"),
        ("vgg_small", None, "none"),
        ("vgg_small", "imagenet", "none"),
        ("resnet101", "none", "none"),
        ("vgg_small", "a/file.pth", "a/file.pth"),
    ],
)
def test_what_a_branch_starts_from(name: str, asked: str | None, found: str) -> None:
    assert initial_weights(name, asked) == found
