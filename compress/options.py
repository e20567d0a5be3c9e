"""Options from a recipe or a checkpoint, held against the dataclass that defines them."""

import dataclasses
import math
import typing
from typing import Any, TypeVar

from compress.errors import BadInput, shown

T = TypeVar("T")


def checked(kind: type[T], options: dict[str, Any], owner: str, *, largest: float = math.inf) -> T:
    """An instance of the frozen dataclass `kind` made from `options`; what is left out keeps its default.

    Field types are bool, int, float, str, Literal, or tuple[T, ...] of one of these, which is made of a list that is
    not empty. Integers must be positive ('blocks', and those that are 0 by default, may be 0), floats finite; fields
    ending in 'kernel' must be odd. Integers and lengths of tuples are at most `largest`.

    Raises:
        BadInput: an option that does not exist, of the wrong type, or out of range. `owner` is named in the sentence.
    """
    hints = typing.get_type_hints(kind)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in options.items():
        if name not in defaults:
            raise BadInput(
                f"expected options of {owner} out of {', '.join(defaults) or 'none'}, found {name!r}: correct the name."
            )
        lowest = 0 if name == "blocks" or defaults[name] == 0 else 1
        label = f"{owner}'s {name}"
        values[name] = _value(label, name, value, hints[name], lowest)
        _check_largest(label, values[name], largest)
    return kind(**values)


def _check_largest(label: str, value: Any, largest: float) -> None:
    if isinstance(value, tuple):
        _check_largest(f"the length of {label}", len(value), largest)
        for item in value:
            _check_largest(f"every item of {label}", item, largest)
    elif type(value) is int and value > largest:
        raise BadInput(f"expected {label} to be at most {largest}, found {value:.6g}: use a smaller number.")


def _value(label: str, name: str, value: Any, wanted: Any, lowest: int) -> Any:
    if typing.get_origin(wanted) is typing.Literal:
        choices = typing.get_args(wanted)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise BadInput(
                f"expected {label} to be one of {', '.join(map(str, choices))}, found {shown(value)}: choose one."
            )
        return value
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, (list, tuple)) or not value:
            raise BadInput(
                f"expected {label} to be a list of at least one value, found {shown(value)}: correct the value."
            )
        return tuple(_value(f"every item of {label}", name, item, typing.get_args(wanted)[0], lowest) for item in value)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise BadInput(f"expected {label} to be of type {wanted.__name__}, found {shown(value)}: correct the value.")
    if wanted is int and value < lowest:
        raise BadInput(f"expected {label} to be positive, found {value}: use a larger number.")
    if wanted is float and not math.isfinite(value):
        raise BadInput(f"expected {label} to be a finite number, found {value}: correct the value.")
    if name.endswith("kernel") and value % 2 == 0:
        raise BadInput(f"expected {label} to be odd, found {value}: use {value + 1}.")
    return value
