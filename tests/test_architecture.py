"""The picture in docs/explanation/architecture.md holds: who may import whom, what stays cheap.

Its lines, from top to bottom, are the one list of the package's folders. Each rule is also seen to
fail, on a small package that breaks it.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "mrkd_ray"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
RAY_IN = {"distributed", "cli"}
TORCH_IN = {"training", "inference", "features", "networks", "method", "representations", "common"}
"""Inside of functions too: elsewhere it would come into the process of a driver or coordinator."""
WITHOUT_TORCH = (
    "cli.main",
    "grid.run",
    "plan.plan",
    "recommend.recommend",
    "distributed.tune_trials",  # the coordinators
    "distributed.ray_cohort",
    "distributed.actors",  # the aggregator
)


@dataclass(frozen=True)
class Import:
    """`module` imports `target`; both begin with the package's name where they are its own."""

    module: str
    target: str
    place: str

    def __str__(self) -> str:
        return f"{self.place} imports {self.target}"


def layers(page: Path) -> list[set[str]]:
    """The folders of each line of the page's first picture, from top to bottom."""
    picture = page.read_text(encoding="utf-8").split("```")[1]
    names = (line.partition("   ")[0] for line in picture.strip("\n").splitlines())
    return [set(name.split()) for name in names if name.strip()]


def modules(package: Path) -> dict[str, Path]:
    parts = {
        path: path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")
    }
    return {".".join(name.parts).removesuffix(".__init__"): path for path, name in parts.items()}


def imports(package: Path) -> list[Import]:
    """All of them: also those inside of functions, and those for type checkers."""
    own = modules(package)
    found = []
    for module, path in own.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in own else str(node.module) for name in whole]
            place = f"{path.relative_to(package)}:{getattr(node, 'lineno', 0)}"
            found += [Import(module, target, place) for target in targets]
    return found


def folder(name: str) -> str:
    """The folder of a module of the package; "" of the package's own files."""
    inside = [*name.split("."), ""][1]
    return "" if inside.startswith("__") else inside


def upward(found: list[Import], order: list[set[str]]) -> list[str]:
    rank = {name: i for i, names in enumerate(order) for name in names}
    return [
        str(each)
        for each in within(found)
        if folder(each.module) != folder(each.target)
        and rank[folder(each.target)] <= rank[folder(each.module)]
    ]


def within(found: list[Import]) -> list[Import]:
    """Imports from one folder of the package to another, or inside of one."""
    name = found[0].module.split(".")[0]
    own = [each for each in found if each.target.split(".")[0] == name]
    return [each for each in own if folder(each.module) and folder(each.target)]


def circle(found: list[Import]) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    graph: dict[str, set[str]] = {}
    for each in within(found):
        graph.setdefault(each.module, set()).add(each.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def outside(found: list[Import], package: str, allowed: set[str]) -> list[str]:
    """Imports of a package from other folders than are allowed."""
    return [
        str(each)
        for each in found
        if each.target.split(".")[0] == package and folder(each.module) not in allowed
    ]


def of_training(found: list[Import]) -> list[str]:
    """Imports of `training` in `inference`."""
    return [
        str(each)
        for each in within(found)
        if (folder(each.module), folder(each.target)) == ("inference", "training")
    ]


def loaded(code: str, names: tuple[str, ...], path: Path = ROOT) -> list[str]:
    """Which of these modules a fresh interpreter has after running the code."""
    code = f"{code}\nimport sys\nprint([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=path)
    assert run.returncode == 0, run.stderr
    return list(ast.literal_eval(run.stdout))


def pairs(found: list[Import]) -> set[tuple[str, str]]:
    """Which folder imports which other."""
    both = {(folder(each.module), folder(each.target)) for each in within(found)}
    return {(one, other) for one, other in both if one != other}


def test_the_picture_has_every_folder_once() -> None:
    order = layers(PAGE)
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert sorted(name for names in order for name in names) == sorted(folders)


def test_every_import_goes_down() -> None:
    assert upward(imports(PACKAGE), layers(PAGE)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports(PACKAGE)) == []


def test_ray_is_imported_where_it_may_be() -> None:
    found = imports(PACKAGE)
    assert outside(found, "ray", RAY_IN) == []
    assert {folder(each.module) for each in found if each.target.split(".")[0] == "ray"}


def test_torch_is_imported_where_it_may_be_also_inside_of_functions() -> None:
    assert outside(imports(PACKAGE), "torch", TORCH_IN) == []


def test_inference_never_imports_training() -> None:
    assert of_training(imports(PACKAGE)) == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_drivers_coordinators_and_the_aggregator_never_load_torch(module: str) -> None:
    assert loaded(f"import mrkd_ray.{module}", ("torch", "torchvision", "librosa")) == []


def test_all_else_works_where_ray_and_librosa_are_not_installed() -> None:
    names = sorted(name for name in modules(PACKAGE) if folder(name) != "distributed")
    code = "import sys, importlib\nsys.modules['ray'] = sys.modules['librosa'] = None\n"
    assert loaded(f"{code}for name in {names}: importlib.import_module(name)", ("os",)) == ["os"]


def test_help_loads_neither_ray_nor_pandas_nor_configurations() -> None:
    heavy = ("ray", "pandas", "numpy", "torch", "pydantic")
    assert loaded("import mrkd_ray.cli.main", heavy) == []


def test_prediction_loads_nothing_slow_besides_torch() -> None:
    code = (
        "import numpy, mrkd_ray.cli.main, mrkd_ray.inference.classifier\n"
        "from mrkd_ray.networks.catalogue import build\n"
        "from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip\n"
        "from mrkd_ray.audio.decoding import Recording\n"
        "names = [name for name, entry in REPRESENTATIONS.items() if not entry.weights]\n"
        "compute_clip(names, Recording(numpy.ones(9000, numpy.float32)))\n"
        "build('vgg_small', 10)\n"
    )
    slow = ("ray", "librosa", "numba", "scipy", "sklearn", "pandas", "torchvision")
    assert loaded(code, slow) == []


# Each rule, broken once -------------------------------------------------------------------------

ORDER = [{"cli"}, {"distributed"}, {"training"}, {"inference"}, {"common"}]


def broken(root: Path, **files: str) -> Path:
    """A package `small` with these files: `folder__module` to what stands in it."""
    package = root / "small"
    for place, text in files.items():
        path = (package / place.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in (package, path.parent):
            (parent / "__init__.py").touch()
        path.write_text(text)
    return package


def test_an_import_upwards_is_seen(tmp_path: Path) -> None:
    inside = "def f():\n    from small.cli import main\n"
    found = imports(broken(tmp_path, cli__main="from small.common import a\n", common__a=inside))
    assert upward(found, ORDER) == ["common/a.py:2 imports small.cli.main"]
    beside = [{"cli", "common"}]  # folders of one line do not import each other either
    assert len(upward(found, beside)) == 2


def test_a_circle_is_seen(tmp_path: Path) -> None:
    a, b = "from small.common.b import x\n", "from small.common import a\n"
    assert {"small.common.a", "small.common.b"} == set(
        circle(imports(broken(tmp_path, common__a=a, common__b=b)))
    )


def test_ray_elsewhere_is_seen(tmp_path: Path) -> None:
    package = broken(
        tmp_path,
        common__a="def f():\n    import ray.util\n",
        distributed__b="from ray import tune\n",
    )
    assert outside(imports(package), "ray", RAY_IN) == ["common/a.py:2 imports ray.util"]


def test_training_in_inference_is_seen(tmp_path: Path) -> None:
    package = broken(
        tmp_path, training__a="", inference__b="from small.training.a import x\n", cli__c=""
    )
    assert of_training(imports(package)) == ["inference/b.py:1 imports small.training.a"]


def test_torch_in_a_driver_is_seen(tmp_path: Path) -> None:
    broken(tmp_path, common__a="import torch\n", cli__main="import small.common.a\n")
    assert loaded("import small.cli.main", ("torch",), tmp_path) == ["torch"]


def test_a_folder_that_is_not_in_the_picture_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```\ncli             what people type\nplan grid       both\n```\n")
    assert layers(page) == [{"cli"}, {"plan", "grid"}]


if __name__ == "__main__":
    everything = imports(PACKAGE)
    print(f"{len({name for names in layers(PAGE) for name in names})} folders,", end=" ")
    print(f"{len(pairs(everything))} pairs of which one imports the other,", end=" ")
    print(f"{len(upward(everything, layers(PAGE)))} upwards, {len(circle(everything))} in circles")
