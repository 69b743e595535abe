"""The ROS-free part as an ordinary Python package: `pip install -e .`. With ROS 2, colcon installs everything."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

setup(version=ElementTree.parse(Path(__file__).parent / "package.xml").findtext("version"))
