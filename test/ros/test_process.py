"""What every executable shares."""

import logging

import pytest
import rclpy.logging

from lerf_ros.ros.process import RosLogHandler


@pytest.fixture
def log():
    logger = logging.getLogger("test_process")
    handler = RosLogHandler(rclpy.logging.get_logger("lerf_of_test"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)


def test_what_the_package_logs_is_in_the_log_of_the_node(log, capfd):
    for number in range(2):  # rclpy refuses another severity at the same place
        log.debug("a detail %d", number)
        log.info("the volume grew %d", number)
        log.warning("out of memory %d", number)
        log.error("a bug %d", number)
    lines = capfd.readouterr().err.splitlines()
    expected = [("INFO", "the volume grew"), ("WARN", "out of memory"), ("ERROR", "a bug")]
    assert len(lines) == 6
    for i, line in enumerate(lines):
        severity, words = expected[i % 3]
        assert line.startswith(f"[{severity}]") and line.endswith(f"[lerf_of_test]: {words} {i // 3}")
