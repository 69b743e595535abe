"""The README names what exists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def leaves(tree, prefix=""):
    for name, value in tree.items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]


def test_every_parameter_of_the_yaml_file_is_in_the_table_and_no_other():
    parameters = yaml.safe_load((ROOT / "config" / "lerf.yaml").read_text())["/**"]["ros__parameters"]
    table = re.findall(r"^\| `([a-z_.]+)` \|", README.split("| parameter |")[1].split("##")[0], re.MULTILINE)
    assert sorted(table) == sorted(leaves(parameters))


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()
