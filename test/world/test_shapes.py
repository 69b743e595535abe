import numpy as np
import pytest
import trimesh

from lerf_ros.world import shapes
from lerf_ros.world.kinds.catalogue import (
    FURNITURE,
    HELD_OUT_COMBINATIONS,
    KINDS,
    OBJECTS,
    build_furniture,
    build_object,
    colours_of,
)
from lerf_ros.world.materials import COLOURS, paint

HEXAGON = [(np.cos(a), np.sin(a)) for a in np.arange(6) * np.pi / 3]


@pytest.mark.parametrize(
    ("mesh", "volume", "tolerance"),
    [
        (shapes.cuboid((1, 2, 3)), 6.0, 1e-9),
        (shapes.cylinder(0.5, 2, sections=200), np.pi * 0.25 * 2, 1e-3),
        (shapes.cylinder(0.5, 2, 0.0, sections=200), np.pi * 0.25 * 2 / 3, 1e-3),
        (shapes.ellipsoid((1, 2, 3), 120), 4 / 3 * np.pi * 6, 2e-3),
        (shapes.pillow((2, 4, 6), 2.0, 120), 4 / 3 * np.pi * 6, 2e-3),
        (shapes.tube([[0, 0, 0], [0, 0, 1], [0, 0, 2]], 0.3, 120), np.pi * 0.09 * 2, 1e-3),
        (shapes.prism(HEXAGON, 2.0), 3 * np.sqrt(3) / 2 * 2, 1e-9),
    ],
)
def test_primitives_are_closed_and_face_outwards(mesh, volume, tolerance):
    solid = trimesh.Trimesh(*mesh, process=False)
    solid.merge_vertices(digits_vertex=9)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(volume, rel=tolerance)  # positive only when all faces look outwards


def test_normals_are_smooth_on_round_shapes_and_sharp_at_creases():
    vertices, faces = shapes.ellipsoid((1, 1, 1), 60)
    normals = shapes.vertex_normals(vertices, faces)
    used = np.unique(faces)
    assert (normals[used] * vertices[used]).sum(axis=1).min() > 0.99
    vertices, faces = shapes.cylinder(1, 1)
    assert set(np.unique(np.round(np.abs(shapes.vertex_normals(vertices, faces)[np.unique(faces), 2]), 3))) == {
        0.0,
        1.0,
    }


def test_a_part_must_be_known():
    with pytest.raises(ValueError, match="PARTS"):
        shapes.Shape().add(shapes.cuboid((1, 1, 1)), paint("red"), "gizmo")


def test_there_are_enough_kinds_and_colours():
    assert len(OBJECTS) >= 25
    assert len({colour for kind in OBJECTS.values() for colour in kind.colours}) >= 10
    assert all(set(kind.colours) <= set(COLOURS) for kind in KINDS.values())


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_stand_on_the_ground_and_have_the_size_of_things(kind):
    shape = build_object(kind, OBJECTS[kind].colours[0], np.random.default_rng(0))
    low, high = shape.vertices().min(axis=0), shape.vertices().max(axis=0)
    assert low[2] == pytest.approx(0)
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-9)
    assert 0.08 <= (high - low).max() <= 0.95


@pytest.mark.parametrize("kind", FURNITURE)
def test_furniture_stands_on_the_floor_and_its_surfaces_are_on_it(kind):
    shape, surfaces = build_furniture(kind, FURNITURE[kind].colours[0], np.random.default_rng(0))
    low, high = shape.vertices().min(axis=0), shape.vertices().max(axis=0)
    assert low[2] == pytest.approx(0, abs=0.02)
    for surface in surfaces:
        half = np.array([surface.depth, surface.width]) / 2
        assert (np.array(surface.centre[:2]) - half >= low[:2] - 1e-9).all()
        assert (np.array(surface.centre[:2]) + half <= high[:2] + 1e-9).all()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("bear", {"head", "ears", "nose"}),
        ("mug", {"handle"}),
        ("car", {"wheels"}),
        ("lamp", {"shade", "base"}),
        ("chair", {"back", "legs", "seat"}),
    ],
)
def test_parts(kind, parts):
    rng = np.random.default_rng(0)
    shape = build_object(kind, "red", rng) if kind in OBJECTS else build_furniture(kind, "red", rng)[0]
    assert parts <= set(shape.parts())


def test_held_out_combinations_are_real_few_and_leave_every_kind_and_colour_in_training():
    total = sum(len(kind.colours) for kind in KINDS.values())
    assert 0.06 < len(HELD_OUT_COMBINATIONS) / total < 0.12
    assert all(colour in KINDS[kind].colours for kind, colour in HELD_OUT_COMBINATIONS)
    trained = {kind: set(colours_of(kind, "train")) for kind in KINDS}
    assert all(trained.values())
    assert set.union(*trained.values()) == set(COLOURS)
