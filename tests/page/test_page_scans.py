"""The viewer on scans of all kinds: several channels, one slice, pictures, DICOM objects."""

import re

import numpy as np
import pytest
from screen import BORDERS, READY, pixels
from stand_in import running

from lamina.io import write_volume
from lamina.report.viewable import write_viewable
from lamina.volume import Volume
from lamina.workflows import view
from lamina.workflows.view import served

RANGES = ((0, 100), (5000, 3000), (-1000, 2000))
"""Lowest value and extent of each channel; the last are those of a CT."""


def chosen(page):
    return page.evaluate("document.querySelector('#window').selectedOptions[0].text")


def test_each_channel_has_windows_of_its_own(tmp_path, visit):
    ramp = np.linspace(0, 1, 32, dtype=np.float32)[:, None, None]
    channels = np.stack([np.broadcast_to(low + wide * ramp, (32, 32, 32)) for low, wide in RANGES])
    write_volume(Volume(channels, np.eye(4)), tmp_path / "scan.nii.gz")
    with served(tmp_path / "scan.nii.gz") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        page.evaluate("document.querySelector('#sides').style.opacity = 0")

        first = pixels(page)
        page.select_option("#frame", label="2")
        assert np.abs(first - pixels(page)).mean() < 8  # all are the same ramp
        page.select_option("#window", label="Whole range")
        page.select_option("#frame", label="3")
        assert chosen(page) == "Whole range"
        assert page.locator("#window option", has_text="Liver").count() == 1
        page.select_option("#window", label="Liver")
        page.select_option("#frame", label="2")
        assert chosen(page) == "Automatic"
        assert page.locator("#window option", has_text="Liver").count() == 0
        assert np.abs(first - pixels(page)).mean() < 8


def test_a_window_set_by_hand_stays_from_frame_to_frame(tmp_path, visit):
    ramp = np.linspace(0, 100, 32, dtype=np.float32)[:, None, None]
    frames = np.broadcast_to(ramp, (2, 32, 32, 32)) * np.float32([1, 5]).reshape(2, 1, 1, 1)
    write_volume(Volume(frames, np.eye(4)), tmp_path / "scan.nii.gz")
    with served(tmp_path / "scan.nii.gz") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        page.select_option("#frame", label="2")
        wide = pixels(page)
        page.select_option("#frame", label="1")
        box = page.locator("#planes").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 60, y - 60)
        page.mouse.down(button="right")
        page.mouse.move(x + 60, y + 60, steps=4)
        page.mouse.up(button="right")
        assert chosen(page) == "As set by hand"
        first = pixels(page)
        page.select_option("#frame", label="2")
        assert chosen(page) == "As set by hand"
        assert np.abs(wide - pixels(page)).mean() > 20
        page.select_option("#frame", label="1")
        assert np.abs(first - pixels(page)).mean() < 1


@pytest.mark.parametrize("write", [write_viewable, write_volume], ids=["view", "job"])
@pytest.mark.parametrize(
    ("shape", "plane", "letters"),
    [((128, 1, 96), "coronal", "RLSI"), ((1, 128, 96), "sagittal", "PASI")],
)
def test_a_single_slice_is_shown_in_its_own_plane(
    tmp_path, visit, monkeypatch, write, shape, plane, letters
):
    monkeypatch.setattr(view, "write_viewable", write)
    image = np.random.default_rng(0).integers(300, 900, (1, *shape)).astype(np.int16)
    write_volume(Volume(image, np.eye(4)), tmp_path / "scan.nii.gz")
    with served(tmp_path / "scan.nii.gz") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        assert page.get_attribute("#screen", "data-view") == plane
        assert not page.is_visible("#views")
        assert "".join(page.inner_text(f"#sides .{name}") for name in BORDERS) == letters
        for key in ("2", "1", "5"):
            page.keyboard.press(key)
        assert page.get_attribute("#screen", "data-view") == plane
        seen = pixels(page)
        assert np.count_nonzero(seen.max(axis=2) > 20) > seen[..., 0].size / 3


def test_the_place_in_a_picture_is_its_column_and_row(tmp_path, visit):
    grey = np.full((1, 90, 60), 40, np.uint8)
    grey[0, 10:20, 5:10] = 255
    affine = np.diag([-1.0, -1, 1, 1])
    write_volume(Volume(grey, affine, unit="px"), tmp_path / "a.png")
    with served(tmp_path / "a.png") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        rows, columns = np.nonzero(pixels(page).min(axis=2) > 240)
        box = page.locator("#planes").bounding_box()
        page.mouse.click(box["x"] + columns.mean(), box["y"] + rows.mean())
        page.wait_for_function("() => document.querySelector('#place').textContent.includes('255')")
        x, y = map(int, re.findall(r"[xy] (\d+)", page.inner_text("#place")))
        assert max(abs(x - 14.5), abs(y - 7)) < 1


def test_structures_that_overlap_have_no_volume_together(tmp_path, visit):
    pytest.importorskip("pydicom")
    from dicom_scans import ball, write_seg, write_series

    slices = write_series(tmp_path / "series")
    outer, inner = (ball(slices, (0, 35, 42), radius) for radius in (9, 5))
    for name, first in (("apart", outer & ~inner), ("overlapping", outer)):
        path = tmp_path / f"{name}.dcm"
        write_seg(path, slices, {"first": first, "second": inner})
        files = tmp_path / "series", path
        with served(*files) as server, running(server), visit(server.url) as page:
            page.wait_for_selector(READY)
            assert page.inner_text("#total").startswith("Together") == (name == "apart")
