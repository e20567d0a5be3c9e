"""Writes the page: the templates, with the style and the script inside."""

import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from compress.errors import BadInput
from compress.files import write_text
from runtime.report.data import ReportData
from runtime.report.view import view

TEMPLATES = Path(__file__).parent / "templates"


def write_report(path: str | Path, data: ReportData) -> None:
    """Writes the page, atomically.

    Raises:
        BadInput: no scene, or one without pictures or with pictures of several sizes.
    """
    if not data.scenes:
        raise BadInput("expected a scene to show in a report, found none: give it a photograph.")
    for scene in data.scenes:
        sizes = {picture.image.shape for picture in scene.pictures}
        if len(sizes) != 1:
            found = ", ".join(map(str, sorted(sizes))) or "none"
            raise BadInput(
                f"expected pictures of one size of {scene.name} for a report, found {found}: resize them first."
            )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    write_text(path, environment.get_template("page.html.j2").render(view(data)))


def breakable(text: str) -> Markup:
    """Text whose lines may break after underscores and before dots, where file names are long."""
    return Markup(re.sub(r"_(?=\w)|(?<=\w)(?=\.[a-z])", r"\g<0><wbr>", str(escape(text))))
