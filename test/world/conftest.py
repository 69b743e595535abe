import pytest

from lerf_ros.world.room import Room


@pytest.fixture(scope="session")
def room() -> Room:
    """One evaluation room with small pictures, shared by the tests (rooms never change)."""
    return Room(3, width=160, height=120)
