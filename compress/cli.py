"""A typed function as a command: its signature is the options, its docstring the help, BadInput its errors."""

import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, set_loader

from compress.errors import BadInput, run_command, shown
from compress.variants import parse_yaml

MESSAGE_MOST = 300  # characters of what jsonargparse says
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


set_loader("recipe", parse_yaml, exceptions=(yaml.YAMLError,))


class Parser(ArgumentParser):
    """jsonargparse's parser, with values read as recipes are and usage errors as BadInput instead of an exit."""

    def __init__(self, **options: Any):
        super().__init__(**{"parser_mode": "recipe", **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        key, found = re.search(r'"([\w.]+)"', message), re.search(r"(?:Got|Given) value: (.*)", message)
        action = next((action for action in self._actions if key and action.dest == key[1]), None)
        hint = f"`{self.prog} --help` lists the options."
        if action and "is required" in message:
            raise BadInput(f"expected {(action.option_strings or [action.dest])[0]}, found nothing: {hint}") from ex
        if action and found:
            name = (action.option_strings or [action.dest])[0]
            wanted = _words(getattr(action, "_typehint", action.type))
            raise BadInput(f"expected {wanted} for {name}, found {shown(found[1])}: {hint}") from ex
        if unknown := re.search(r"(?:Group|Key) '?([\w.]+)'? does not accept option '([\w.]+)'", message):
            raise BadInput(f"expected known options of {unknown[1]!r}, found {unknown[2]!r}: {hint}") from ex
        if "parsing config" in message:
            raise BadInput(
                f"expected a YAML file, found that it does not parse ({_first(message)}): correct it."
            ) from ex
        said = textwrap.shorten(message, MESSAGE_MOST, placeholder="...")
        raise BadInput(f"expected known options with values that fit, found that {said}: {hint}") from ex


def command_line(
    function: Callable[..., int | None], argv: Sequence[str] | None = None, *, contained: bool = False
) -> None:
    """Runs `function` with its arguments parsed from `argv` (default: the program's), then exits; see `run_command`.

    Positional parameters are positional on the command line (with a default, they may be left out); keyword-only
    ones are `--options`. `list[T]` and `Sequence[T]` take several values; `bool` with default False is a flag.
    """
    parser = parser_of(function)
    run_command(lambda: function(**vars(parser.instantiate(parser.parse_args(argv)))), contained=contained)


def parser_of(function: Callable[..., Any]) -> Parser:
    """The parser that `command_line` uses; `function` has type hints and a Google-style docstring."""
    module = getattr(sys.modules[function.__module__], "__spec__", None)  # named also when it runs as __main__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    doc = docstring_parser.parse(function.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    texts = {entry.arg_name: entry.description for entry in doc.params}
    about = "\n\n".join(text for text in (doc.short_description, doc.long_description) if text)
    parser = Parser(prog=program, description=about)
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option = parameter.kind is parameter.KEYWORD_ONLY
        required = parameter.default is parameter.empty
        details: dict[str, Any] = {"help": texts.get(name), "type": hints[name]}
        if not required:
            details["default"] = parameter.default
        elif option:
            details["required"] = True
        if typing.get_origin(hints[name]) in (list, Sequence):
            details |= {"type": typing.get_args(hints[name])[0], "nargs": "+" if required or option else "*"}
            if not required:
                details["default"] = list(parameter.default)
        elif hints[name] is bool and parameter.default is False:
            details = {"help": texts.get(name), "action": "store_true"}
        elif not option and not required:
            details["nargs"] = "?"
        parser.add_argument(f"--{name}" if option else name, **details)
    return parser


def _first(message: str) -> str:
    """What the YAML parser says, on one line."""
    return " ".join(message.partition(":")[2].split())


def _words(kind: Any) -> str:
    """A type as words for a person."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_words(one) for one in typing.get_args(kind) if one is not type(None))
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', str(kind)).lower()}")
