"""What every page has in common: one file, its styles and scripts within it, that opens without a network."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from orchestrator.analysis.text import clean, size
from orchestrator.guest.cache import cache_dir
from orchestrator.store.atomic import replace_text

_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Scripts:
    """What draws the charts of a page: Vega with Vega-Lite and Vega-Embed, and what calls them."""

    library: str
    embed: str


def fill(template: str, drawing: Scripts, **values: Any) -> str:
    """The page that a template makes of `values`; `specs` among them are its charts by element."""
    page: str = (
        _templates()
        .get_template(template)
        .render(
            **values,
            css=_raw((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            library=_raw(drawing.library),
            embed=_raw(drawing.embed),
            script_hashes=_raw(f"{_csp_hash(drawing.library)} {_csp_hash(drawing.embed)}"),
        )
    )
    return page + "\n"


@cache
def _templates() -> Any:  # jinja2.Environment, which keeps what it compiled
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "size": size}
    return environment


@cache
def scripts() -> Scripts:
    """Of the version that the charts are written for. Bundling them takes over a second and depends on two
    versions alone: the bundle is kept in the cache, which is the one thing that making a page writes beside
    the page."""
    import altair

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    # A script element ends at these words wherever they stand; in JavaScript strings "\\/" is "/".
    bundle = re.sub(r"</(?=script)", r"<\\/", _bundle(version), flags=re.IGNORECASE)
    library = bundle.replace("<!--", r"<\!--")
    return Scripts(library, (_TEMPLATES / "embed.js").read_text(encoding="utf-8"))


def _bundle(version: str) -> str:
    kept = cache_dir() / "vega" / f"{version}-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # it is optional
    with suppress(OSError):  # without a cache that can be written to, every report pays for it
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_text(kept, bundle)
    return bundle


def _csp_hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _raw(ours: str) -> Any:  # markupsafe.Markup, of text that is this program's own
    from markupsafe import Markup

    return Markup(ours)  # noqa: S704  # library, embed.js and hashes; never anything from a run
