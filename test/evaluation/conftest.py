"""One exam, and methods that know the truth or nothing at all: what must be said about them is known beforehand."""

import numpy as np
import pytest

from lerf_ros.evaluation.exam import Exam
from lerf_ros.query.targets import Answer, Target
from lerf_ros.world.parts import PARTS
from lerf_ros.world.room import Room


@pytest.fixture(scope="session")
def exam() -> Exam:
    """One validation room with small pictures and a short walk."""
    return Exam(Room(10_001, width=160, height=120, frames=24), views=5)


@pytest.fixture(scope="session")
def oracle():
    return Oracle


@pytest.fixture(scope="session")
def guesser():
    return Guesser


def target_at(position, relevancy=0.9):
    return Target(
        np.asarray(position, float), np.array([0.0, 0.0, 0.0, 1.0]), np.ones(3), relevancy, 0.2, 10, np.eye(3)
    )


class Oracle:
    """Answers with the highest point of what is asked for, moved up by `shift` m, and knows what is absent."""

    name = "oracle"

    def __init__(self, exam: Exam, shift: float = 0.0):
        self.exam, self.shift = exam, shift
        self.queries = {query.text: query for query in exam.queries}

    def answer(self, texts, min_relevancy=None, max_targets=1):
        answers = []
        for text in texts:
            query = self.queries[text]
            targets = [target_at(self.highest(i, query.part) + [0, 0, self.shift]) for i in query.instance_ids]
            answers.append(Answer(text, tuple(targets[:max_targets]), 0.9 if targets else 0.1))
        return answers

    def highest(self, instance, part):
        scene = self.exam.room.scene
        faces = scene.instance == instance
        if part is not None:
            faces &= scene.part == 1 + PARTS.index(part)
        vertices = scene.vertices[scene.faces[faces]].reshape(-1, 3).astype(float)
        return vertices[vertices[:, 2].argmax()]

    def relevancy_view(self, camera, T_world_camera, texts, stride):
        instance = self.exam.room.view(camera, T_world_camera).instance[stride // 2 :: stride, stride // 2 :: stride]
        return np.stack([np.isin(instance, self.queries[text].instance_ids) for text in texts]).astype(np.float32)


class Guesser:
    """Answers with a random visible point, of the room or (`own`) of the thing that is asked about; relevancies and
    views are random, too."""

    name = "guesser"

    def __init__(self, exam: Exam, seed: int, own: bool = False):
        self.exam, self.rng, self.own = exam, np.random.default_rng(seed), own
        self.queries = {query.text: query for query in exam.queries}
        self.points, _ = exam.surface.sample(20_000, self.rng)
        self.of_thing = {}

    def answer(self, texts, min_relevancy=None, max_targets=1):
        answers = []
        for text in texts:
            targets = tuple(target_at(self.point(text), self.rng.random()) for _ in range(max_targets))
            answers.append(Answer(text, targets, targets[0].relevancy))
        return answers

    def point(self, text):
        ids, points = self.queries[text].instance_ids, self.points
        if self.own and ids:
            if ids[0] not in self.of_thing:
                self.of_thing[ids[0]] = self.exam.surface.sample(1000, self.rng, ids[0])[0]
            points = self.of_thing[ids[0]]
        return points[self.rng.integers(len(points))]

    def relevancy_view(self, camera, T_world_camera, texts, stride):
        shape = camera.height // stride, camera.width // stride
        return self.rng.random((len(texts), *shape)).astype(np.float32)
