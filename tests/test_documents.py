"""Figures in the documentation are those of the code."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lamina.models import NETWORKS, PUBLISHED, configure
from lamina.report import benchmarks

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| `(\w+)` \| (\d+)→(\d+), [^|]*\| ([\d,]+)[^|]*\| ([^|]*) \|")


def rows(file):
    found = ROW.findall((ROOT / file).read_text("utf-8"))
    return {name: figures for name, *figures in found}


def test_the_page_of_networks_lists_all_of_them():
    assert set(rows("docs/networks.md")) == set(NETWORKS)


@pytest.mark.parametrize("file", ["docs/networks.md", "README.md"])
def test_counts_are_current(file):
    """Made by ``tools/networks.py``; run it again where this fails."""
    for name, (in_channels, num_classes, parameters, printed) in rows(file).items():
        channels = {"in_channels": int(in_channels), "num_classes": int(num_classes)}
        with torch.device("meta"):
            network = configure(name, **channels).build()
        count = sum(p.numel() for p in network.parameters())
        assert int(parameters.replace(",", "")) == count, name
        published = PUBLISHED.get(name).parameters if name in PUBLISHED else None
        assert printed.strip() == (published or ""), name


def test_the_page_of_preprocessing_shows_its_record():
    """Made by ``tools/preprocessing.py``; run it again where this fails."""
    page = runpy.run_path(str(ROOT / "tools" / "preprocessing.py"))["page"]
    record = json.loads((ROOT / "docs" / "preprocessing.json").read_text("utf-8"))
    assert (ROOT / "docs" / "preprocessing.md").read_text("utf-8") == page(record)


def test_the_page_of_benchmarks_shows_its_record():
    """Made by ``lamina bench --out docs``; run it again where this fails."""
    record = json.loads((ROOT / "docs" / "benchmarks.json").read_text("utf-8"))
    shown = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert shown == benchmarks.page(record)


def test_the_page_of_metrics_shows_their_registry_and_its_records():
    """Made by ``tools/metrics.py``; run it again where this fails."""
    page = runpy.run_path(str(ROOT / "tools" / "metrics.py"))["page"]
    records = [
        json.loads((ROOT / "docs" / f"metric_{name}.json").read_text("utf-8"))
        for name in ("conformance", "speed")
    ]
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == page(*records)


def test_the_tables_of_results_show_their_records():
    """Made by ``make results``; run it again where this fails."""
    tool = runpy.run_path(str(ROOT / "tools" / "results_page.py"))
    records = tool["read_records"]()
    assert (ROOT / "docs" / "results.md").read_text("utf-8") == tool["page"](records)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == tool["with_table"](readme, records)


def test_the_network_of_the_manual_keeps_the_contract_as_it_stands(tmp_path):
    page = (ROOT / "docs" / "adding-a-network.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "halfnet.py").write_text(code, "utf-8")
    contract = ("tests/contracts/test_networks.py", "-k", "halfnet", "-o", "addopts=")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "halfnet", *contract],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


SECTIONS = runpy.run_path(str(ROOT / "tools" / "sections.py"))


@pytest.mark.parametrize("name", SECTIONS["PAGES"])
def test_sections_of_pages_show_their_records(name):
    """Made by ``tools/sections.py``; run it again where this fails."""
    page, _ = SECTIONS["PAGES"][name]
    record = json.loads((ROOT / "docs" / f"{name}.json").read_text("utf-8"))
    shown = (ROOT / "docs" / page).read_text("utf-8")
    assert shown == SECTIONS["with_section"](shown, name, record)
