import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from lerf_ros.evaluation.exam import cover, halfway, pixel_box
from lerf_ros.world.parts import PARTS
from lerf_ros.world.room import HARDLY_VISIBLE, SEEN_IN, WELL_VISIBLE
from lerf_ros.world.truth import CATEGORIES


def test_halfway_poses_are_half_way():
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, :3, :3] = Rotation.random(4, rng=1).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(4, 3))
    middle = halfway(poses)
    slerp = Slerp(np.arange(4), Rotation.from_matrix(poses[:, :3, :3]))
    np.testing.assert_allclose(middle[:, :3, :3], slerp([0.5, 1.5, 2.5]).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(middle[1, :3, 3], poses[1:3, :3, 3].mean(axis=0))


def test_views_are_chosen_for_what_they_add_and_then_spread():
    sets = [{1}, {1, 2, 3}, {3, 4}, {1}, {1}, {1}, {1}]
    assert cover(sets, 2) == [1, 2]
    assert cover(sets, 3) == [1, 2, 6]
    assert cover(sets, 99) == list(range(7)) and cover([set(), set()], 1) == [0]


def test_a_pixel_box_is_tight_and_inclusive():
    mask = np.zeros((6, 9), bool)
    mask[2, 3:6] = mask[4, 7] = True
    assert pixel_box(mask) == (3, 2, 7, 4)


def test_held_out_views_are_no_frames_and_their_boxes_hold_what_is_visible(exam):
    assert len(exam.held_out) == 5
    for view in exam.held_out:
        pose = view.view.T_world_camera
        assert all(np.abs(pose - frame).max() > 1e-3 for frame in exam.room.trajectory)
        for instance, (u0, v0, u1, v1) in view.boxes.items():
            v, u = np.nonzero(view.view.instance == instance)
            assert len(u) >= WELL_VISIBLE * 160 * 120
            assert (u.min(), v.min(), u.max(), v.max()) == (u0, v0, u1, v1)


def test_all_categories_are_asked_and_every_askable_thing_once(exam):
    queries, room = exam.queries, exam.room
    assert {query.category for query in queries} <= set(CATEGORIES)
    assert len({query.text for query in queries}) == len(queries)
    things = [query for query in queries if query.category in ("object", "attribute")]
    assert sorted(query.instance_ids[0] for query in things) == sorted(room.askable) and len(things) >= 10
    assert sum(query.category == "absent" for query in queries) >= 10
    assert sum(query.category == "absent_colour" for query in queries) >= 5
    for query in queries:
        assert query.present == (not query.category.startswith("absent"))
        # No rival has the colour that is said, so that the text is wrong for it.
        if query.category in ("attribute", "absent_colour"):
            assert query.rivals and all(room.things[i].colour not in query.text.split() for i in query.rivals)


def test_parts_are_asked_for_when_three_frames_show_them(exam):
    room = exam.room
    asked = {(query.instance_ids[0], query.part): query.category for query in exam.queries if query.part}
    assert len(asked) > 10
    views = [room.truth_view(i) for i in range(len(room))]
    for instance, thing in room.things.items():
        for part in thing.parts.keys() - {"body"} if instance in room.askable else ():
            index = 1 + PARTS.index(part)
            counts = [np.count_nonzero((v.instance == instance) & (v.part == index)) for v in views]
            size = sorted(counts)[-SEEN_IN] / (160 * 120)
            category = asked.get((instance, part))
            for limit, below, above in (
                (HARDLY_VISIBLE, (None,), ("small_part", "part")),
                (WELL_VISIBLE, (None, "small_part"), ("part",)),
            ):
                if size > 1.6 * limit:
                    assert category in above, (thing.caption, part)
                if size < 0.6 * limit:
                    assert category in below, (thing.caption, part)


def test_distances_to_the_true_surface_agree_with_dense_samples(exam):
    surface, scene = exam.surface, exam.room.scene
    rng = np.random.default_rng(0)
    thing = exam.room.objects[0]
    triangles = scene.vertices[scene.faces[scene.instance == thing.instance_id]].astype(float)
    weights = rng.dirichlet(np.ones(3), (len(triangles), 400))
    samples = np.einsum("fnk,fkc->fnc", weights, triangles).reshape(-1, 3)
    points = thing.box.centre + rng.normal(0, 0.3, (20, 3))
    nearest, _ = cKDTree(samples).query(points)
    exact = [surface.distance(x, thing.instance_id) for x in points]
    assert all(e <= n + 1e-9 for e, n in zip(exact, nearest)) and np.abs(exact - nearest).max() < 0.01


def test_samples_are_visible_uniform_and_on_the_surface(exam):
    surface, room = exam.surface, exam.room
    floor = next(t for t in room.things.values() if t.kind == "floor")
    points, faces = surface.sample(3000, np.random.default_rng(1), floor.instance_id)
    assert 100 < len(points) < 3000 and (room.scene.instance[faces] == floor.instance_id).all()
    assert np.abs(points[:, 2]).max() < 1e-4
    for x in points[:20]:
        rays = x - room.trajectory[:, :3, 3]
        hits = room.scene.cast(room.trajectory[:, :3, 3], rays)
        assert (np.abs(hits["tfar"] - 1) * np.linalg.norm(rays, axis=1) < 0.004).any()


@pytest.mark.parametrize("category", ["object", "part"])
def test_what_is_on_a_thing_answers_a_question_about_it(exam, category):
    rng = np.random.default_rng(2)
    for query in [q for q in exam.queries if q.category == category][:12]:
        points, faces = exam.surface.sample(300, rng, query.instance_ids[0])
        own = exam.room.scene.part[faces] == 1 + PARTS.index(query.part) if query.part else np.ones(len(faces), bool)
        assert all(exam.surface.answers(x, query) for x in points[own][:20]), query.text
        if query.part:  # half a metre above it is no answer
            assert not any(exam.surface.answers(x + [0, 0, 0.5], query) for x in points[own][:5])
