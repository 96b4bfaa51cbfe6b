"""One self-contained HTML page for a paper: claims, published values, each study's table and figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.report.formats import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Args:
        uri: the SVG itself.
        alt: what it shows, for who cannot see it.
    """

    uri: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A study on the page."""

    anchor: str
    title: str
    source: str
    command: str
    notes: Sequence[str] = ()
    deviations: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Picture] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """All that the page says.

    Args:
        claims: `runner.claims.register.Judged`.
        setting: what scale=paper stands for.
        published: published values beside measured ones.
        environment: lines about machines, versions and durations.
    """

    title: str
    subtitle: str
    setting: str
    claims: Sequence[Any]
    sections: Sequence[Section]
    published: Table | None = None
    environment: Sequence[str] = field(default_factory=list)

    def html(self) -> str:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        loader = FileSystemLoader(Path(__file__).parent)
        templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        return templates.get_template("page.html.j2").render(vars(self))


def picture(figure: Figure) -> Picture:
    """The figure as an SVG that brings its own text."""
    from runner.report.figures import rendered

    svg = rendered(figure, "svg", **{"svg.fonttype": "path"})  # a font that the reader's machine lacks would be wider
    encoded = base64.b64encode(svg).decode()
    return Picture(f"data:image/svg+xml;base64,{encoded}", figure.get_suptitle().replace("\n", " "))
