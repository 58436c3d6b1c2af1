"""Bring trained models into the package, with card and notice.

    python tools/shipped.py add NAME --model RUN --source "Who made the scans, where, a link"
    python tools/shipped.py int8 NAME --calibrate WORK
    python tools/shipped.py notice

``add`` takes a run or a ``.lamina`` file; without ``--model`` the model that is there gets its card
anew. ``int8`` refuses what loses more than half a point of Dice, and is to be repeated whenever the
model changes. All write the notice from what the models themselves say of their data.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import fill

from lamina.bundle import Bundle, load_bundle, save_bundle
from lamina.folders.bundle import find_bundle
from lamina.pretrained import FOLDER, INT8, SUFFIX, shipped
from lamina.workflows.export import export

NOTICE = "NOTICE.txt"
_LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
_WIDTH = 100
_HEAD = """\
Models in this folder are for research; none is a medical device. Each holds a card (README.md in
the archive) that says what it was trained on, how well it does, and where it may fail. A folder
NAME-int8 is the same model in int8, with the same card.
"""


def main() -> None:
    """Run one of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    adding = verbs.add_parser("add", help="bring a model, or write the card of one anew")
    adding.add_argument("name")
    adding.add_argument("--model", type=Path)
    adding.add_argument("--source", help="who made the scans, and where they are described")
    quantising = verbs.add_parser("int8", help="write one in int8, if it is as good")
    quantising.add_argument("name")
    quantising.add_argument("--calibrate", type=Path, required=True, help="its work folder")
    verbs.add_parser("notice", help="write the notice")
    arguments = parser.parse_args()
    if arguments.verb == "add":
        add(arguments.name, arguments.model, arguments.source)
    if arguments.verb == "int8":
        name, work = arguments.name, arguments.calibrate
        export(Path(name), "openvino", FOLDER / f"{name}{INT8}", int8=True, calibrate=work)
    (FOLDER / NOTICE).write_text(notice(shipped()), "utf-8")


def add(name: str, model: Path | None, source: str | None) -> None:
    """Write a model into the package, with what its data's source is called from now on."""
    file = FOLDER / f"{name}{SUFFIX}"
    bundle = load_bundle(find_bundle(model or file))
    dataset = bundle.provenance["dataset"] | ({"source": source} if source else {})
    save_bundle(replace(bundle, provenance=bundle.provenance | {"dataset": dataset}), file)


def notice(models: Mapping[str, Path]) -> str:
    """Return the text that names the data behind each model, and their licences."""
    return "\n".join([_HEAD, *(_entry(name, load_bundle(file)) for name, file in models.items())])


def _entry(name: str, bundle: Bundle) -> str:
    dataset = bundle.provenance["dataset"]
    licence, source = dataset["licence"], dataset["source"].rstrip(".")
    link = f" ({_LICENCES[licence]})" if licence in _LICENCES else ""
    told = (
        f"Trained on {dataset['name']}: {source}. Licence of the data: {licence}{link}. "
        "The weights are given under the same licence."
    )
    indent = "  "
    text = fill(
        told,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{name}{SUFFIX}\n{text}\n"


if __name__ == "__main__":
    main()
