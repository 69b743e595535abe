"""Parameters of a node, declared from a table of rows: names, types, ranges, choices and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node


class ParameterError(ValueError):
    """A parameter has a value that cannot be used; the text says which and what it may be."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: dotted, as in the YAML file.
        default: also gives the type.
        description: shown by `ros2 param describe`, with the unit.
        minimum, maximum: inclusive range of a number.
        choices: the strings allowed.
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """As ROS wants it; everything here is read when the node is configured, so none is read-only."""
        described = ParameterDescriptor(description=self.description)
        if self.choices:
            described.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                described.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))]
            else:
                limits = {"from_value": float(self.minimum), "to_value": float(self.maximum)}
                described.floating_point_range = [FloatingPointRange(**limits)]
        return described


class Parameters:
    """Declared parameters of a node, by dotted name.

    Raises:
        ParameterError: a value in the YAML file or on the command line has the wrong type or is out of range.
    """

    def __init__(self, node: Node, table: Sequence[Parameter]) -> None:
        self._node = node
        self._table = {parameter.name: parameter for parameter in table}
        for parameter in table:
            try:
                node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
            except ParameterException as error:
                raise ParameterError(f"parameter {parameter.name} ({parameter.description}): {error}") from error

    def __getitem__(self, name: str) -> Any:
        value = self._node.get_parameter(name).value
        choices = self._table[name].choices
        if choices and value not in choices:
            raise ParameterError(f"parameter {name} is '{value}'; it can be {', '.join(choices)}")
        return list(value) if isinstance(self._table[name].default, list) else value
