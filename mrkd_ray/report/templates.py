"""The templates of all pages. What they share, colours and a style, lies beside this file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(name: str, package: str = "mrkd_ray.report") -> Template:
    """Return a template: what it is given is escaped, and what it is not given is an error.

    Args:
        name: of its file.
        package: in which the file lies. It may include files that lie here.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("mrkd_ray.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
