"""Recipes as plain YAML: strict reading, and variants such as `--quick` merged over the rest."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from compress.errors import BadInput

VARIANTS = "variants"
QUICK = "quick"
NODES_MOST = 100_000  # values of a recipe
NAMING = ("name", "architecture")  # what `options` beside them belong to


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of version 1.2: 1e-3 is a number, 2:4 (sexagesimal in 1.1) and 010 are not what they seem."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (yaml.SafeLoader declares it)
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.value, key.start_mark) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[str] = set()
        for key, mark in keys:
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN))$"
    ),
    list("-+0123456789."),
)


def read_variant(path: str | Path, variant: str | None = None) -> dict[str, Any]:
    """A recipe's YAML as a dict, with the named variant merged over the rest and without the key `variants`.

    A variant that says nothing of `out` gets its own folder, `OUT_VARIANT`: it is another run than the full one.

    Args:
        path: the YAML file.
        variant: a key of its mapping `variants`; None for the recipe as it stands.

    Raises:
        BadInput: no such file, not YAML, not a mapping, a key that is there twice, or an unknown variant.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"expected a recipe (a YAML file), found nothing at {path}: see the folder recipes/.")
    try:
        whole = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            f"expected a YAML file, found that {path} does not parse ({reason(error)}): correct it."
        ) from error
    whole = _mapping(whole, str(path))
    known = _mapping(whole.pop(VARIANTS, None) or {}, f"the {VARIANTS} of {path}")
    if variant is None:
        return whole
    if variant not in known:
        raise BadInput(
            f"expected a variant of {path} out of {', '.join(known) or 'none (it has none)'}, found {variant!r}: "
            "choose one, or leave it out for the full recipe."
        )
    change = _mapping(known[variant] or {}, f"the variant {variant!r} of {path}")
    merged = merge(whole, change)
    if "out" not in change and isinstance(whole.get("out"), str):
        merged["out"] = f"{whole['out']}_{variant}"
    return merged


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` laid over `base`: mappings merge, key by key; everything else, null included, replaces.

    Where `change` gives a mapping another `name` or `architecture`, the `options` of the base are dropped, because
    they belong to what was named before. A key that only `change` has follows the one it follows there: the order of
    stages means something.
    """
    renamed = any(key in change and key in base and change[key] != base[key] for key in NAMING)
    merged = {key: value for key, value in base.items() if not (renamed and key == "options")}
    order, last = list(merged), None
    for key, value in change.items():
        before = merged.get(key)
        merged[key] = merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
        if key not in order:
            order.insert(order.index(last) + 1 if last else len(order), key)
        last = key
    return {key: merged[key] for key in order}


def parse_yaml(text: str) -> Any:
    """The value that a YAML text is, with the rules of `read_variant`.

    Raises:
        yaml.YAMLError: not YAML, nested too deeply, or with aliases that stand for more than `NODES_MOST` values.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _size(root, {}) > NODES_MOST:
            raise yaml.YAMLError(f"its aliases stand for more than {NODES_MOST} values")
        return loader.construct_document(root)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for, aliases written out; infinite for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is known
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values in which two nested dicts differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix.removesuffix(".") or "everything"]
    keys = sorted({*before, *now})
    return [name for key in keys for name in differences(before.get(key), now.get(key), f"{prefix}{key}.")]


def reason(error: Exception) -> str:
    """Why YAML does not parse, on one line."""
    return " ".join(str(error).split())


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        found = (
            f"the key {next(k for k in value if not isinstance(k, str))!r}" if isinstance(value, dict) else f"{value!r}"
        )
        raise BadInput(f"expected names with values (`name: value`) in {what}, found {found[:80]}: correct the file.")
    return value
