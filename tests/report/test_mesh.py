"""Surfaces of segmentations in patient millimetres."""

import base64
import itertools

import numpy as np
import pytest

from lamina.errors import FileError
from lamina.labels import LabelSet

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("skimage")
pytest.importorskip("fast_simplification")

from lamina.report.mesh import surfaces_of, write_surfaces  # noqa: E402
from lamina.report.scene import MAX_FACES, pack_scene  # noqa: E402

LABELS = LabelSet(values={"ball": 4, "left/right box": 9})
OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
FLIPS = list(itertools.product((1, -1), repeat=3))


def scene():
    """Return class indices of a ball and, cut off by the border, a box."""
    places = np.moveaxis(np.indices((30, 34, 26)), 0, -1)
    indices = np.zeros(places.shape[:3], np.uint8)
    indices[((places - (12, 14, 12)) ** 2).sum(-1) < 9**2] = 1
    indices[24:, 25:, 3:20] = 2
    return indices


def affine(flips=(1, 1, 1), turn=OBLIQUE):
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(np.array([1.0, 0.8, 2.5]) * flips)
    matrix[:3, 3] = (-30, 12.5, 200)
    return matrix


def closed(surface):
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


@pytest.mark.parametrize("turn", [np.eye(3), np.eye(3)[[2, 0, 1]], OBLIQUE])
@pytest.mark.parametrize("flips", FLIPS)
def test_surfaces_lie_where_the_voxels_lie_and_face_outwards(flips, turn):
    indices, place = scene(), affine(flips, turn)
    surfaces = surfaces_of(indices, place, LABELS)
    assert [surface.name for surface in surfaces] == list(LABELS.values)
    for index, surface in enumerate(surfaces, start=1):
        mesh = closed(surface)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        voxels = np.argwhere(indices == index)
        volume = len(voxels) * 1.0 * 0.8 * 2.5
        assert mesh.volume == pytest.approx(volume, rel=0.02)
        assert surface.volume_ml == pytest.approx(volume / 1000)
        middle = voxels.mean(axis=0) @ place[:3, :3].T + place[:3, 3]
        np.testing.assert_allclose(mesh.center_mass, middle, atol=0.1)


def test_a_voxel_is_as_large_as_it_is():
    indices = np.zeros((3, 3, 3), np.uint8)
    indices[0, 1, 2] = 1
    (surface,) = surfaces_of(indices, affine(turn=np.eye(3)), LABELS)
    extent = surface.vertices.max(axis=0) - surface.vertices.min(axis=0)
    np.testing.assert_allclose(extent, (1.0, 0.8, 2.5))


def test_smoothing_keeps_the_volume_and_takes_the_steps_away():
    stepped, smooth = (surfaces_of(scene(), affine(), LABELS, smooth=s)[0] for s in (False, True))
    assert closed(smooth).volume == pytest.approx(closed(stepped).volume, rel=0.02)
    assert closed(smooth).is_watertight
    turns = [np.abs(closed(s).face_adjacency_angles).mean() for s in (stepped, smooth)]
    assert turns[1] < 0.75 * turns[0]


def test_smoothing_leaves_small_and_thin_parts_as_they_are():
    indices = np.zeros((40, 30, 30), np.uint8)
    indices[4:6, 4, 4] = indices[2:38, 24:26, 24:26] = 1
    places = np.moveaxis(np.indices(indices.shape), 0, -1)
    indices[((places - (18, 12, 12)) ** 2).sum(-1) < 8**2] = 1
    stepped, smooth = (
        surfaces_of(indices, np.eye(4), LABELS, smooth=smooth)[0] for smooth in (False, True)
    )
    assert stepped.volume_ml == smooth.volume_ml == (indices == 1).sum() / 1000
    before, after = (closed(surface).split() for surface in (stepped, smooth))
    assert len(before) == len(after) == 3
    for small, same in zip(before, after, strict=True):
        assert same.volume == pytest.approx(small.volume, rel=0.05)
    ball, same_ball = (max(parts, key=lambda part: part.volume) for parts in (before, after))
    turns = [np.abs(part.face_adjacency_angles).mean() for part in (ball, same_ball)]
    assert turns[1] < 0.75 * turns[0]


def test_fewer_triangles_are_asked_for_and_given():
    (ball, _) = surfaces_of(scene(), affine(), LABELS, smooth=True, max_faces=500)
    assert len(ball.faces) <= 500
    whole = closed(surfaces_of(scene(), affine(), LABELS)[0])
    assert closed(ball).volume == pytest.approx(whole.volume, rel=0.03)


def test_glb_keeps_names_colours_and_millimetres_and_says_its_axes(tmp_path):
    surfaces = surfaces_of(scene(), affine(), LABELS)
    (path,) = write_surfaces(tmp_path / "out" / "both.GLB", surfaces)
    content = path.read_bytes()
    assert b'"space":"RAS"' in content
    assert b'"unit":"mm"' in content
    found = trimesh.load(path, process=False, file_type="glb")
    for surface in surfaces:
        mesh = found.geometry[surface.name]
        np.testing.assert_allclose(mesh.bounds, closed(surface).bounds, atol=1e-3)
        shade = mesh.visual.material.baseColorFactor[:3] / 255
        np.testing.assert_allclose(shade, surface.colour, atol=0.01)
        assert mesh.is_winding_consistent
        assert mesh.volume > 0


def test_lps_turns_right_to_left_and_front_to_back(tmp_path):
    surfaces = surfaces_of(scene(), affine(), LABELS)[:1]
    meshes = []
    for space in ("RAS", "LPS"):
        (path,) = write_surfaces(tmp_path / f"{space}.stl", surfaces, space)
        assert path.read_bytes().startswith(f"SPACE={space} UNIT=mm".encode())
        meshes.append(trimesh.load(path))
    ras, lps = meshes
    np.testing.assert_allclose(lps.center_mass, ras.center_mass * (-1, -1, 1), atol=1e-3)
    assert lps.volume == pytest.approx(ras.volume)
    assert ras.is_watertight


def test_stl_has_a_file_for_each_structure(tmp_path):
    surfaces = surfaces_of(scene(), affine(), LABELS)
    paths = write_surfaces(tmp_path / "all.stl", surfaces)
    assert [path.name for path in paths] == ["all_ball.stl", "all_left_right_box.stl"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_stl_files_of_names_that_look_alike_do_not_replace_each_other(tmp_path):
    labels = LabelSet(values={"GTV (1)": 1, "GTV [1]": 2, "gtv_1_": 3, "GTV_1__2": 4})
    indices = np.zeros((24, 6, 6), np.uint8)
    for index in labels.values.values():
        indices[5 * index : 5 * index + index, 2:4, 2:4] = index
    surfaces = surfaces_of(indices, np.eye(4), labels)
    paths = write_surfaces(tmp_path / "all.stl", surfaces)
    assert len({path.name.casefold() for path in paths}) == 4
    for surface, path in zip(surfaces, paths, strict=True):
        assert trimesh.load(path).volume == pytest.approx(closed(surface).volume, rel=1e-4)


def test_the_same_on_both_sides_is_nowhere_apart_however_it_is_thinned():
    side = np.arange(140)
    places = np.stack(np.meshgrid(side, side, side[:28], indexing="ij"), axis=-1) * (0.8, 0.8, 4)
    ball = (((places - (56, 56, 56)) ** 2).sum(-1) < 50**2).astype(np.uint8)
    affine = np.diag([0.8, 0.8, 4, 1])
    same = surfaces_of(ball, affine, LABELS)
    assert len(same[0].faces) > 2 * MAX_FACES
    scene = pack_scene(same, same, 4.0)
    assert scene["far_mm"] == 4
    for side in ("reference", "predicted"):
        (packed,) = scene[side]
        assert len(base64.b64decode(packed["faces"])) < 13 * MAX_FACES
        assert set(base64.b64decode(packed["distances"])) == {0}
    moved = surfaces_of(np.roll(ball, 10, axis=0), affine, LABELS)
    apart = pack_scene(same, moved, 4.0)
    farthest = max(base64.b64decode(apart["reference"][0]["distances"]))
    assert apart["far_mm"] == 8
    assert farthest / 255 * 8 == pytest.approx(8, abs=0.8)


def test_obj_names_its_objects(tmp_path):
    surfaces = surfaces_of(scene(), affine(), LABELS)
    (path,) = write_surfaces(tmp_path / "all.obj", surfaces)
    text = path.read_text("utf-8")
    assert text.startswith("# SPACE=RAS UNIT=mm\no ball\n")
    assert "\no left/right box\n" in text
    mesh = trimesh.load(path, process=False)
    assert mesh.volume / 1000 == pytest.approx(sum(s.volume_ml for s in surfaces), rel=0.01)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"not written as \.ply.*\.glb, \.obj, \.stl"):
        write_surfaces(tmp_path / "x.ply", [])
