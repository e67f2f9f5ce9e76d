"""Options of config groups in files of one's own: loss=PATH.yaml, as the search of Parameterized AP loss writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rankdet.errors import UserError

GROUPS = ("loss", "rpn")


def opened(overrides: Sequence[str]) -> list[str]:
    """overrides with each loss=PATH.yaml or rpn=PATH.yaml replaced by the option that it builds on and its settings.

    Such a file is written as one of the group's own, which it could become by being moved to configs/<group>/: defaults
    with one option of the group, and the keys that differ from it. UserError naming a file that is not so.
    """
    found: list[str] = []
    for item in overrides:
        group, _, value = item.partition("=")
        found += settings(group, Path(value)) if group in GROUPS and value.endswith(".yaml") else [item]
    return found


def settings(group: str, path: Path) -> list[str]:
    """What the file comes to as overrides."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))  # as Hydra reads it: 1e-3 is a number, no key is twice
    except FileNotFoundError as error:
        raise UserError(f"{group}={path}: no such file") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{group}={path}: cannot be read ({' '.join(str(error).split())})") from error
    base = content.pop("defaults", None) if isinstance(content, dict) else None
    if not (isinstance(base, list) and len(base) == 1 and isinstance(base[0], str)):
        raise UserError(f"{path}: must say which option of {group} it builds on, e.g. defaults: [parameterized_ap]")
    return [f"{group}={base[0]}", *(f"{key}={as_value(value)}" for key, value in leaves(content, group))]


def leaves(node: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Nested keys joined by dots, with their values."""
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        name = f"{prefix}.{key}"
        found += leaves(value, name) if isinstance(value, Mapping) else [(name, value)]
    return found


def as_value(value: Any) -> str:  # noqa: ANN401
    """A value of YAML's in the grammar of overrides."""
    if isinstance(value, list):
        return f"[{','.join(map(as_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
