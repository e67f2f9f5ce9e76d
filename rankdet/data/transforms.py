"""albumentations' transforms by name, imported without a network request and with every argument checked."""

import os
import warnings
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for its newest version

import albumentations as A

from rankdet.errors import UserError


def transform(name: str, **arguments: Any) -> "A.BasicTransform | A.BaseCompose":  # noqa: ANN401
    """albumentations.<name>(**arguments), for configs.

    albumentations 2.0.8 merely warns of an unknown argument and goes on without it, or falls back to all defaults when
    a value does not validate; here both are a UserError, as is an unknown name.
    """
    factory = getattr(A, name, None)
    if not (isinstance(factory, type) and issubclass(factory, (A.BasicTransform, A.BaseCompose))):
        raise UserError(f"augment: albumentations has no transform named {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return factory(**arguments)
        except (UserWarning, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"augment: {name} does not take these arguments: {reason}") from error
