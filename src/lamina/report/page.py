"""Pages that stand alone: styles, pictures and scripts are within them, nothing is fetched."""

from pathlib import Path
from typing import Any


def render(template: str, **content: Any) -> str:
    """Fill a template of this folder; what is text stays text, whatever it holds.

    Args:
        template: Name of the file in ``templates``.
        content: What the template calls by name; all of it must be there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lamina.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda file: "/".join(Path(file).parts[-2:])
    return environment.get_template(template).render(**content)
