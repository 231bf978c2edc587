"""What the paper reports: its figures, and its tables' captions and layout."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

SOURCE = (
    "Liang Gao, Kele Xu, Huaimin Wang, Yuxing Peng: Multi-Representation Knowledge Distillation "
    "For Audio Classification. arXiv:2002.09607, 2020"
)
TSNE_NOTE = (
    'For its Figures 4 and 5 (t-SNE) the paper names 1600 manually verified clips of the "THU 2018 '
    'dataset"; of its two data sets, the one with such a test side is FSDKaggle2018.'
)
EPOCHS = 150
DATASETS = {
    "fsdkaggle2018": "FSDKaggle2018",
    "tut2018": "TUT Urban Acoustic Scenes 2018",
}
REPRESENTATIONS = {"logmel64": "logMel", "logmel128": "logMel128", "mfcc": "MFCC", "cqt": "CQT"}
NETWORKS = {"resnet101": "ResNet", "vgg19": "VGGNet"}
"""How its tables call a representation and a network."""


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: Roman, as in the paper.
        caption: the paper's own.
        shared: what the branches of a pairing have in common, the first column; None where a row
            holds a whole pairing, branch beside branch.
        note: where the paper's text and figures do not agree.
    """

    number: str
    caption: str
    shared: Literal["network", "representation"] | None
    note: str = ""


TABLES = {
    "table1": PaperTable(
        "I",
        "The results (%) of distillation using cross resolution representations with network "
        "architecture as ResNet on FSDKaggle2018 dataset.",
        "network",
        "The paper's caption says ResNet; its table has VGGNet as well.",
    ),
    "table2": PaperTable(
        "II",
        "The results (%) of distillation using multiple representations with ResNet as network "
        "architecture on FSDKaggle2018 dataset.",
        "network",
    ),
    "table3": PaperTable(
        "III",
        "The results (%) of distillation using multiple representations with ResNet on TUT Urban "
        "acoustic scenes 2018 dataset.",
        "network",
        "The paper's caption says ResNet; its table has VGGNet as well.",
    ),
    "table4": PaperTable(
        "IV",
        "The results (%) of distillation using different network architectures with inputs of "
        "logMel on TUT Urban acoustic scenes 2018 dataset.",
        "representation",
    ),
    "table5": PaperTable(
        "V",
        "The results (%) of distillation using different network architectures with inputs of CQT "
        "on FSDKaggle2018 dataset.",
        "representation",
        "The paper's caption says CQT; its table has logMel as well. The accuracy of CQT with "
        "VGGNet alone is 75.13 here and 75.12 in Table VI.",
    ),
    "table6": PaperTable(
        "VI",
        "The results (%) of distillation using multiple representations and different network "
        "architectures on FSDKaggle2018 dataset. I is an abbreviation for input, and N is an "
        "abbreviation for network.",
        None,
        "The accuracy of CQT with VGGNet alone is 75.12 here and 75.13 in Table V.",
    ),
    "table7": PaperTable(
        "VII",
        "The results (%) of distillation using multiple representations and different network "
        "architectures on TUT Urban acoustic scenes 2018 dataset. I is an abbreviation for input, "
        "and N is an abbreviation for network.",
        None,
    ),
}

FIGURE3_BRANCH = "logmel64:resnet101"
FIGURE3_CAPTION = (
    "The results (%) comparison of different mode distillation on FSDKaggle2018 dataset, for the "
    "branch with logMel as input and ResNet as the network. DN: distillation using different "
    "network architectures; DR: using different representations; D-RN: using both."
)
FIGURE3_NOTE = (
    "The paper does not name the partners in Figure 3; all that its Tables II, V and VI have for "
    "this branch are listed."
)
FIGURE3_MODES = (
    ("DN", "V", "logmel64:vgg19+logmel64:resnet101"),
    ("DR", "II", "logmel64:resnet101+mfcc:resnet101"),
    ("DR", "II", "logmel64:resnet101+cqt:resnet101"),
    ("D-RN", "VI", "logmel64:resnet101+mfcc:vgg19"),
    ("D-RN", "VI", "logmel64:resnet101+cqt:vgg19"),
)
"""Mode, the table that reports it, and its pairing."""


def reported() -> pd.DataFrame:
    """Return the figures of Tables I to VII, in percent: a row per model of a pairing.

    Columns: table (Roman), dataset, row, branches (the pairing, `a:b+c:d`), model (branch or
    ensemble), representation, network ("" for an ensemble), distilled (bool), accuracy, map3.
    """
    import pandas as pd

    with (resources.files(__package__) / "reported.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#", keep_default_na=False)


def dataset_of(number: str) -> str:
    """Return the data set of a table, such as `tut2018`."""
    return "tut2018" if number in ("III", "IV", "VII") else "fsdkaggle2018"


def branch_title(branch: str) -> str:
    """Return `representation:network` as the paper's tables write it: `logMel,ResNet`."""
    representation, _, network = branch.partition(":")
    return f"{REPRESENTATIONS.get(representation, representation)},{NETWORKS.get(network, network)}"
