"""``spatialbench report``: the page, rendered.

The page makes no request: a content security policy forbids every one, and allows exactly the
script and the style in it. Nothing depends on the clock: the same files give the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.html import figures, tables
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.html.record_browser import KINDS, RowMaps, Sample, browser_data, framed
from spatialbench.report.html.record_browser import record_image as image_of
from spatialbench.report.map_figures import overlay

PACKAGE = "spatialbench.report.html"


def html(
    inputs: ReportInputs,
    sample: Sample | str | None = None,
    maps: Mapping[str, RowMaps | str] | None = None,
) -> str:
    """Render the whole file.

    Args:
        sample: the records that are shown, or why there are none; None: no such section.
        maps: name of every row -> its maps, or why there are none; None: no such section.
    """
    style, script = _source("report.css"), _source("page.js", "records.js")
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}"
    values = {
        **{"inputs": inputs, "tables": tables, "figures": figures, "titles": TITLES},
        **{"sample": sample, "maps": maps, "style": style, "script": script},
        "policy": f"{policy}; img-src data:",
        "explanations": {n: _emphasised(c.explanation) for n, c in inputs.classes.items()},
        "relations": [(name, TITLES[name]) for name in RELATIONS],
        "kinds": [(kind, kind) for kind in KINDS],
        "data": browser_data(inputs, sample) if isinstance(sample, Sample) else None,
        "mapped": _mapped(sample, maps) if isinstance(sample, Sample) and maps else [],
    }
    return _environment().get_template("page.html.j2").render(values)


def _mapped(sample: Sample, maps: Mapping[str, RowMaps | str]) -> list[dict[str, Any]]:
    """Every record with maps: its caption, its image, and the overlays of each row."""
    rows = {name: row for name, row in maps.items() if not isinstance(row, str)}
    records = []
    for place, record in enumerate(sample.mapped if rows else ()):
        image = image_of(sample.test, record)
        overlays = [
            [
                {"title": f"{name}, {kind}", **framed(overlay(image, values[place]), record)}
                for kind, values in row.items()
            ]
            for name, row in rows.items()
        ]
        own = {"title": "image", **framed(image, record)}
        records.append({"caption": record.statement.caption, "image": own, "overlays": overlays})
    return records


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _breakable(name: object) -> Markup:
    """Let a name of words joined by underscores break behind each."""
    return Markup("_<wbr>").join(escape(word) for word in str(name).split("_"))


def _emphasised(markdown: str) -> Markup:
    """Set ``*x*`` of a paragraph of Markdown in italics."""
    parts = [escape(part) for part in " ".join(markdown.split()).split("*")]
    parts[1::2] = [Markup("<em>{}</em>").format(part) for part in parts[1::2]]
    return Markup("").join(parts)


def _source(*names: str) -> Markup:
    """Style sheets or scripts of this folder, which are markup of our own."""
    folder = resources.files(PACKAGE)
    return Markup("\n").join(Markup(folder.joinpath(name).read_text("utf-8")) for name in names)


def _digest(text: str) -> str:
    """Let a content security policy allow exactly this style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
