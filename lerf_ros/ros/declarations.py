"""Parameters of a node, declared from a table of rows; and what may change when."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter


class ParameterError(ValueError):
    """A parameter has a value that cannot be used; the text says which and what it may be."""


class Read(Enum):
    """When a parameter is read, and so when a change can have an effect."""

    ALWAYS = "changes at once"
    ACTIVATE = "read when the node is activated"
    CONFIGURE = "read when the node is configured"
    START = "read when the node starts"


# What leads from a state to one in which a change of these parameters would be read.
_STEPS_BACK = {
    Read.CONFIGURE: {"configuring": "cleanup", "inactive": "cleanup", "active": "deactivate, then cleanup"},
    Read.ACTIVATE: {"active": "deactivate"},
}


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: dotted, as in the YAML file.
        default: also gives the type.
        description: shown by `ros2 param describe`, with the unit.
        minimum, maximum: inclusive range of a number.
        choices: the strings allowed.
        read: when it is read.
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    read: Read = Read.CONFIGURE

    def descriptor(self) -> ParameterDescriptor:
        """As ROS wants it."""
        described = ParameterDescriptor(description=self.description, read_only=self.read is Read.START)
        constraints = ["one of: " + ", ".join(self.choices)] if self.choices else []
        described.additional_constraints = "; ".join([*constraints, self.read.value])
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                described.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))]
            else:
                limits = {"from_value": float(self.minimum), "to_value": float(self.maximum)}
                described.floating_point_range = [FloatingPointRange(**limits)]
        return described

    def check(self, value: Any) -> None:
        """What ROS does not check itself. Raises ParameterError."""
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name} is '{value}'; it can be {', '.join(self.choices)}")


class Settings(Protocol):
    """Values of parameters by dotted name."""

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class _Proposal:
    """Values as they would be after a change."""

    present: Settings
    changed: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.changed[name] if name in self.changed else self.present[name]


class Parameters:
    """Declared parameters of a node, by dotted name. A change is refused, with the reason, when its value cannot be
    used, or when it would have no effect in the present state of the node.

    Args:
        state: lifecycle state of the node; empty: one without a life.
        checks: functions of all values together that raise ParameterError when they do not go together.

    Raises:
        ParameterError: a value in the YAML file or on the command line has the wrong type or is out of range.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[Parameter],
        state: Callable[[], str] = str,
        checks: Sequence[Callable[[Settings], object]] = (),
    ) -> None:
        self._node, self._state, self._checks = node, state, checks
        self._table: dict[str, Parameter] = {}
        self._effects: list[tuple[frozenset[str], Callable[[Settings], None]]] = []
        self.declare(table)
        node.add_on_set_parameters_callback(self._on_set)

    def declare(self, table: Sequence[Parameter]) -> None:
        """Declares further rows; those that are declared already stay as they are."""
        for parameter in table:
            if parameter.name in self._table:
                continue
            try:
                declared = self._node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
            except ParameterException as error:
                raise ParameterError(f"parameter {parameter.name} ({parameter.description}): {error}") from error
            parameter.check(declared.value)
            self._table[parameter.name] = parameter

    def __getitem__(self, name: str) -> Any:
        return self._plain(name, self._node.get_parameter(name).value)

    def on_change(self, names: Sequence[str], effect: Callable[[Settings], None]) -> None:
        """Calls `effect` with all values whenever one of these parameters has changed."""
        self._effects.append((frozenset(names), effect))

    def _plain(self, name: str, value: Any) -> Any:
        return list(value) if isinstance(self._table[name].default, list) else value

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        wanted = {each.name: self._plain(each.name, each.value) for each in parameters if each.name in self._table}
        changed = {name: value for name, value in wanted.items() if value != self[name]}
        proposal = _Proposal(self, changed)
        try:
            for name, value in changed.items():
                self._table[name].check(value)
                self._check_state(name)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        added = self._problems(proposal) - self._problems(self)  # what was wrong before must not forbid mending it
        if added:
            return SetParametersResult(successful=False, reason="; ".join(sorted(added)))
        for names, effect in self._effects:
            if not names.isdisjoint(changed):
                effect(proposal)
        return SetParametersResult(successful=True)

    def _check_state(self, name: str) -> None:
        read = self._table[name].read
        steps = _STEPS_BACK.get(read, {}).get(self._state())
        if steps:
            node = self._node.get_fully_qualified_name()
            raise ParameterError(f"parameter {name} is {read.value}: ros2 lifecycle set {node} {steps} first")

    def _problems(self, settings: Settings) -> set[str]:
        found = set()
        for check in self._checks:
            try:
                check(settings)
            except ParameterError as error:
                found.add(str(error))
        return found

    def mistyped(self) -> list[str]:
        """What is said in the YAML file or on the command line about parameters that do not exist, with the nearest
        name that does. ROS passes over them without a word, and rclpy has no public way to them."""
        overrides: Mapping[str, Any] = getattr(self._node, "_parameter_overrides", {})
        return [
            self._correction(name)
            for name in overrides
            if not self._node.has_parameter(name) and not name.startswith("qos_overrides.")  # declared when used
        ]

    def _correction(self, name: str) -> str:
        nearest = difflib.get_close_matches(name, self._table, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "ros2 param list names those that exist"
        return f"parameter {name} does not exist and has no effect: {hint}"
