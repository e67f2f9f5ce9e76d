"""YAML and JSON files, read with every key checked."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from rankdet.errors import UserError

# What the front-end decides; a row that set them too would silently win or lose.
RESERVED = ("experiment", "protocol", "data", "data.root", "seed")
# The C parser reads the registry in a fifth of a second, the Python one in three.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):
    """PyYAML keeps the last of two equal keys without a word; a lost row is a mistake to report."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """The file's content; UserError naming the file where it is missing, does not parse or repeats a key."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> Any:  # noqa: ANN401
    """The file's content; UserError naming the file where it does not parse."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid JSON ({error}): delete it, and the run it belongs to is done again"
        ) from error


def check_keys(
    value: object, where: str, required: Collection[str], optional: Collection[str] = ()
) -> Mapping[str, Any]:
    """value, if it is a mapping with all of required and nothing beyond required and optional; else UserError."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping with the keys {', '.join(required)}, got {value!r}")
    for key in value:
        if key not in required and key not in optional:
            raise UserError(f"{where}: unknown key {key!r}; known are {', '.join([*required, *optional])}")
    for key in required:
        if key not in value:
            raise UserError(f"{where}: key {key!r} is missing")
    return value


def items(raw: object, where: str) -> list[Any]:
    """raw, if it is a list; else UserError."""
    if not isinstance(raw, list):
        raise UserError(f"{where}: expected a list, got {raw!r}")
    return raw


def strings(raw: object, where: str) -> tuple[str, ...]:
    """A list's items as text."""
    return tuple(str(item) for item in items(raw, where))


def flag(raw: object, where: str) -> bool:
    """raw, if it is true or false; else UserError."""
    if not isinstance(raw, bool):
        raise UserError(f"{where}: expected true or false, got {raw!r}")
    return raw


def seed_list(raw: object, where: str) -> tuple[int, ...]:
    """Different whole numbers, at least one."""
    seeds = items(raw, where)
    if not seeds or len(set(seeds)) != len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"{where}: expected different whole numbers, got {seeds}")
    return tuple(seeds)


def override_list(raw: object, where: str) -> tuple[str, ...]:
    """key=value settings, none of them one that the front-end decides."""
    for item in items(raw, where):
        if not isinstance(item, str) or "=" not in item:
            raise UserError(f"{where}: expected key=value, got {item!r}")
        if item.partition("=")[0] in RESERVED:
            raise UserError(f"{where}: {item!r} is not a row's to set")
    return tuple(items(raw, where))
