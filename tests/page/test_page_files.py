"""The page's own files: what a browser is given must stand alone and be readable."""

import hashlib
import re
from pathlib import Path

import pytest
from stand_in import STATIC

OWN = sorted(p for p in STATIC.iterdir() if p.name not in ("niivue.umd.js", "NOTICE.txt"))
TEXT = {path.name: path.read_text("utf-8") for path in OWN}
LINKS = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.-]+\.[a-z]{2,}")
PAIRS = [
    *((ink, ground) for ink in ("ink", "muted") for ground in ("page", "card", "hover", "soft")),
    *(("accent", ground) for ground in ("page", "card", "soft")),
    ("on-accent", "accent"),
    ("error", "card"),
    ("error", "error-soft"),
    ("ink", "error-soft"),
    ("warning", "card"),
    ("warning", "warning-soft"),
    ("good", "page"),
]


def test_niivue_is_the_published_file_with_its_licences():
    digest = hashlib.sha256((STATIC / "niivue.umd.js").read_bytes()).hexdigest()
    notice = (STATIC / "NOTICE.txt").read_text("utf-8")
    assert digest in notice
    assert "Copyright (c) 2021, Niivue" in notice


@pytest.mark.parametrize("name", TEXT)
def test_nothing_is_asked_of_other_hosts(name):
    assert not LINKS.findall(TEXT[name])


def test_the_policy_of_the_page_leaves_no_room_for_foreign_scripts():
    page = TEXT["index.html"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page)


def test_text_is_never_set_as_html():
    for name, text in TEXT.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text), name


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), PAIRS)
def test_text_has_the_contrast_that_wcag_aa_asks_for(theme, ink, ground):
    found = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", TEXT["style.css"])
    colours = {name: shades[theme] for name, *shades in found}
    light, dark = sorted(map(luminance, (colours[ink], colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_page_is_part_of_the_package():
    package_data = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert '"serve/static/*"' in package_data
