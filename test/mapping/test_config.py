import json

import pytest

from lerf_ros.mapping.config import PRESETS, MapperConfig


def test_overrides_by_dotted_name_leave_the_rest_alone():
    config = MapperConfig().override(
        {"keyframe.translation": 0.5, "radiance.grid.levels": 4, "scene.center": [1, 2, 3]}
    )
    assert config.keyframe.translation == 0.5
    assert config.radiance.grid.levels == 4
    assert config.scene.center == (1.0, 2.0, 3.0)
    assert config.language == MapperConfig().language
    assert MapperConfig().keyframe.translation != 0.5


@pytest.mark.parametrize("preset", PRESETS)
def test_values_survive_json(preset):
    values = json.loads(json.dumps(PRESETS[preset].values()))
    assert MapperConfig().override(values) == PRESETS[preset]


def test_automatic_values_can_be_set_and_unset():
    config = MapperConfig().override({"scene.radius": 3})
    assert config.scene.radius == 3.0
    assert config.override({"scene.radius": None}).scene.radius is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"keyframe.translaton": 0.5}, "translation"),  # names the ones there are
        ({"keyframe": 0.5}, "group"),
        ({"keyframe.translation.x": 0.5}, "single value"),
        ({"keyframe.capacity": 2.5}, "int"),
        ({"keyframe.capacity": True}, "int"),
        ({"keyframe.translation": "far"}, "float"),
        ({"scene.center": [1.0, 2.0]}, "3 values"),
        ({"scene.center": 1.0}, "list"),
        ({"radiance.exposure": 1}, "bool"),
        ({"keyframe.capacity": 0}, "keyframe.capacity"),
        ({"keyframe.translation": float("nan")}, "keyframe.translation"),
    ],
)
def test_wrong_overrides_are_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        MapperConfig().override(values)


def test_base_has_the_sizes_of_lerf():
    base = PRESETS["base"]
    assert (base.radiance.grid.levels, base.radiance.grid.log2_table, base.radiance.grid.max_resolution) == (
        16,
        19,
        2048,
    )
    assert (base.language.coarse_grid.levels, base.language.coarse_grid.features) == (12, 8)
    assert (base.language.fine_grid.min_resolution, base.language.fine_grid.max_resolution) == (128, 512)
    assert base.pyramid.fractions == (0.05, 0.125, 0.2, 0.275, 0.35, 0.425, 0.5)
