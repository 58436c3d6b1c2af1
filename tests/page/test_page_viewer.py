"""The viewer in a browser, on files of this machine as ``lamina view`` serves them."""

import numpy as np
import pytest
from screen import BORDERS, READY, pixels
from stand_in import running

from lamina.data.phantom import PHANTOM_LABELS, make_phantom
from lamina.files import write_json
from lamina.io import write_volume
from lamina.report.viewable import write_viewable
from lamina.volume import Volume
from lamina.workflows import view
from lamina.workflows.view import served

OPPOSITE = {"R": "L", "A": "P", "S": "I"}


def coloured(picture):
    """Count the pixels that are not grey: structures, and the thin cross."""
    return int(np.count_nonzero(np.ptp(picture, axis=2) > 40))


def near(picture, colour, within=60):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int(np.count_nonzero(np.abs(picture - wanted).sum(axis=2) < within))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    image, label = make_phantom(3)
    write_volume(image, folder / "scan.nii.gz")
    write_volume(label, folder / "label.nii.gz")
    write_json(folder / "dataset.json", {"labels": {"background": 0, **PHANTOM_LABELS.values}})
    return folder / "scan.nii.gz", folder / "label.nii.gz"


def test_structures_are_drawn_and_each_control_changes_the_picture(phantom, visit):
    for package in ("skimage", "trimesh", "fast_simplification"):
        pytest.importorskip(package)
    with served(*phantom) as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        assert "token" not in page.url
        names = page.locator("#structures .name").all_inner_texts()
        assert names == list(PHANTOM_LABELS.values)
        assert not page.is_visible("#side")

        page.keyboard.press("2")
        assert page.is_checked("#views input[value=axial]")
        shown = pixels(page)
        page.keyboard.press("o")
        bare = pixels(page)
        page.keyboard.press("o")
        assert coloured(shown) > coloured(bare) + 5000
        assert np.array_equal(pixels(page), shown)

        page.keyboard.press("Shift+Digit1")
        assert "liver hidden" in page.inner_text("#live")
        assert coloured(pixels(page)) < coloured(shown) - 2000
        page.keyboard.press("Shift+Digit1")

        page.fill("#opacity", "0")
        page.keyboard.press("l")
        assert 0 < coloured(pixels(page)) - coloured(bare) < coloured(shown) - coloured(bare)

        place, slice_number = page.inner_text("#place"), page.inner_text("#slice-number")
        page.focus("#planes")
        page.keyboard.press("ArrowUp")
        assert page.inner_text("#slice-number") != slice_number
        assert page.inner_text("#place") != place
        page.select_option("#window", label="Bone")
        assert not np.array_equal(pixels(page), shown)

        page.click("#structures .name >> text=aorta")
        assert page.inner_text("#place").endswith("aorta")
        page.keyboard.press("5")
        page.wait_for_selector("#loading", state="hidden")
        assert near(pixels(page, "#solid-box"), "#56b4e9", within=150) > 1000

        page.set_viewport_size({"width": 390, "height": 844})
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        planes = pixels(page)
        height, width = planes.shape[0] // 2, planes.shape[1] // 2
        for quarter in (planes[:height, :width], planes[:height, width:], planes[height:, :width]):
            assert np.count_nonzero(quarter.max(axis=2) > 60) > 3000


def test_keys_while_surfaces_load_break_nothing_and_fetch_them_once(phantom, visit):
    for package in ("skimage", "trimesh", "fast_simplification"):
        pytest.importorskip(package)
    with served(*phantom) as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        asked = []
        page.route("**/*.glb", lambda route: asked.append(route))
        with page.expect_request("**/*.glb"):
            page.reload()
        for key in ("5", "ArrowLeft", "+", "2", "5"):
            page.keyboard.press(key)
        (request,) = asked
        request.continue_()
        page.wait_for_selector(READY)
        page.wait_for_selector("#loading", state="hidden")
        assert len(asked) == 1
        assert near(pixels(page, "#solid-box"), "#56b4e9", within=150) > 1000


def test_cursor_keys_move_slices_unless_what_was_reached_by_keys_takes_them(phantom, visit):
    with served(*phantom) as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)

        def moves(key):
            before = page.inner_text("#slice-number")
            page.keyboard.press(key)
            return page.inner_text("#slice-number") != before

        page.click("#views label:has-text('Coronal')")
        page.wait_for_function("() => document.activeElement.id === 'planes'")
        assert moves("ArrowUp")
        page.click("#structures .name >> text=aorta")
        assert moves("ArrowUp")
        page.uncheck("#overlay")
        assert moves("PageDown")
        assert page.is_checked("#views input[value=coronal]")

        page.focus("#views input[value=coronal]")
        page.keyboard.press("ArrowRight")
        assert page.is_checked("#views input[value=sagittal]")
        assert page.evaluate("document.activeElement.value") == "sagittal"


def test_a_picture_is_shown_in_colour_on_a_telephone(tmp_path, visit):
    colours = np.zeros((3, 40, 30), np.uint8)
    colours[0], colours[1, :, 15:] = 200, 180
    affine = np.diag([-1.0, -1, 1, 1])
    write_volume(Volume(colours, affine, unit="px"), tmp_path / "a.png")
    with (
        served(tmp_path / "a.png") as server,
        running(server),
        visit(server.url, width=390, height=844, color_scheme="dark", has_touch=True) as page,
    ):
        page.wait_for_selector(READY)
        assert page.inner_text("#place").startswith("x ")
        assert not page.locator("#sides span").count()
        for hidden in ("#views", "#window-box", "#overlay-tools", "#structures-card"):
            assert not page.is_visible(hidden)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = pixels(page)
        half = shown.shape[0] // 2
        assert near(shown[:half], "#c80000") > 5000  # the first rows are on top
        assert near(shown[half:], "#c8b400") > 5000
        box, before = page.locator("#planes").bounding_box(), page.inner_text("#place")
        page.touchscreen.tap(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
        moved = "before => document.querySelector('#place').textContent !== before"
        page.wait_for_function(moved, arg=before)


@pytest.mark.parametrize("flipped", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_letters_stand_on_the_side_of_the_patient_that_they_name(flipped, tmp_path, visit):
    """A bright ball lies to the right, in front and above, however the voxels run."""
    image = np.zeros((1, 40, 40, 40), np.float32)
    image[0, 30:36, 30:36, 30:36] = 1
    affine = np.eye(4)
    for axis, sense in enumerate(flipped):
        if sense < 0:
            image, affine[axis, axis] = np.flip(image, 1 + axis), -affine[axis, axis]
    write_volume(Volume(np.ascontiguousarray(image), affine), tmp_path / "scan.nii.gz")
    with served(tmp_path / "scan.nii.gz") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        whole = page.locator("#planes-box").bounding_box()
        for plane, (right, low) in {"axial": (0, 0), "coronal": (1, 0), "sagittal": (0, 1)}.items():
            place = page.locator(f".sides.{plane}").bounding_box()
            assert place["x"] == whole["x"] + right * whole["width"] / 2
            assert place["y"] == whole["y"] + low * whole["height"] / 2
        page.evaluate("document.querySelector('#sides').style.opacity = 0")
        for key, (across, up) in {"2": "RA", "3": "RS", "4": "AS"}.items():
            page.keyboard.press(key)
            page.keyboard.press("0")
            for _ in range(14):  # from the middle to the ball
                page.keyboard.press("ArrowUp")
            seen = pixels(page)
            rows, columns = np.nonzero(seen.min(axis=2) > 200)
            borders = {name: page.inner_text(f"#sides .{name}") for name in BORDERS}
            assert borders["left" if columns.mean() < seen.shape[1] / 2 else "right"] == across
            assert borders["top" if rows.mean() < seen.shape[0] / 2 else "bottom"] == up
            assert {*borders.values()} == {across, up, OPPOSITE[across], OPPOSITE[up]}


@pytest.mark.parametrize("write", [write_viewable, write_volume], ids=["view", "job"])
def test_what_does_not_tell_how_it_lies_in_the_body_has_no_sides(
    tmp_path, visit, monkeypatch, write
):
    monkeypatch.setattr(view, "write_viewable", write)
    radiograph = np.full((1, 40, 30), 90, np.int16)
    write_volume(Volume(radiograph, np.diag([-0.3, -0.3, 1, 1])), tmp_path / "a.nii")
    with served(tmp_path / "a.nii") as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        assert page.inner_text("#place").startswith("x ")


def test_a_structure_may_have_the_value_0(tmp_path, visit):
    label = np.full((1, 20, 20, 20), 255, np.uint8)
    label[:, 5:15, 5:15, 5:15] = 0
    write_volume(Volume(np.ones_like(label), np.eye(4)), tmp_path / "a.nii")
    write_volume(Volume(label, np.eye(4)), tmp_path / "label.nii")
    write_json(tmp_path / "dataset.json", {"labels": {"background": 255, "liver": 0}})
    files = tmp_path / "a.nii", tmp_path / "label.nii"
    with served(*files) as server, running(server), visit(server.url) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        shown = coloured(pixels(page))
        page.keyboard.press("o")
        assert shown > coloured(pixels(page)) + 5000
        assert page.inner_text("#place").endswith("liver")
