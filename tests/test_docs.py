"""The documentation: made from the code where it can be, no dead link, all near the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import make_reference
from tests.conftest import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(
    r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\""
)
FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


def links(page: Path) -> set[Path]:
    """Files that a page links to, in the project."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = {next(filter(None, groups)) for groups in LINK.findall(text)}
    inside = {t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")}
    return {(page.parent / target).resolve() for target in inside}


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def test_the_reference_is_what_the_code_says() -> None:
    assert make_reference.differing() == [], "run: python -m docs.make_reference"


def test_a_reference_that_differs_is_seen(tmp_path: Path) -> None:
    for name, text in make_reference.pages().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert make_reference.differing(tmp_path) == []
    page = tmp_path / "configuration.md"
    page.write_text(page.read_text().replace("Windows in a minibatch.", "Clips."))
    (tmp_path / "names.md").unlink()
    assert make_reference.differing(tmp_path) == ["configuration.md", "names.md"]


@pytest.mark.parametrize("page", [ROOT / "README.md", *pages()], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    assert {link for link in links(page) if not link.exists()} == set()


def test_nothing_is_more_than_two_clicks_from_the_index() -> None:
    near = {DOCS / "index.md"}
    for _ in range(2):
        near |= {link for page in near if page.suffix == ".md" for link in links(page)}
    assert set(pages()) - near == set()


def test_every_page_is_in_the_menu_of_the_site_or_linked_from_the_evidence() -> None:
    menu = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert {path for path in menu if not (DOCS / path).is_file()} == set()
    left = {page for page in pages() if page.relative_to(DOCS).as_posix() not in menu}
    assert left <= links(DOCS / "results" / "index.md")


def test_pages_named_in_the_code_exist() -> None:
    folders = ("mrkd_ray", "tests", "experiments", "benchmarks", "docs")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    for file in files:
        if file.suffix in (".py", ".yaml", ".j2"):
            named = re.findall(r"\bdocs/[\w/.-]+\.md", file.read_text(encoding="utf-8"))
            assert [page for page in named if not (ROOT / page).is_file()] == [], file


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_test_that_reliability_names_is_there() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    rows = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    lacking = []
    for row in filter(lambda line: line.startswith("|"), rows):
        words = re.findall(r"`([\w/.]+)`", row.strip().strip("|").rpartition("|")[2])
        named = [word for word in words if word.endswith(".py")]
        own = [p for p in files if any(p.as_posix().endswith(f"/{name}") for name in named)]
        names = [name for path in own for name in re.findall(r"def (test_\w+)", files[path])]
        for word in words if named else ():
            there = (
                any(p.as_posix().endswith(f"/{word}") for p in own)
                if word in named
                else any(word in name for name in names)
            )
            lacking += [] if there else [word]
    assert lacking == []
