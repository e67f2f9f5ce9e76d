"""What the commands share: one clear line and an exit code for the user's mistakes, and Hydra's flags where wanted."""

import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rankdet.config import CONFIG_DIR, checked, compose
from rankdet.errors import UserError
from rankdet.training.codes import NOT_FINITE
from rankdet.training.distributed import leave

P = ParamSpec("P")
USER_ERROR, INTERRUPTED = 2, 130  # exit codes, beside those of training/codes.py


def command(main: Callable[P, None]) -> Callable[P, None]:
    """Wraps a command's main: a UserError, a non-finite value or Ctrl-C is one line on stderr and its exit code.

    Any other error is a traceback and code 1. After any of them a process that is one of many leaves at once.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except (UserError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            leave(USER_ERROR if isinstance(error, UserError) else NOT_FINITE)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            leave(INTERRUPTED)
        except SystemExit as error:
            if isinstance(error.code, int):
                leave(error.code)
            raise
        except Exception:
            traceback.print_exc()
            leave(1)

    return wrapped


def hydra_command(run: Callable[[DictConfig], None]) -> None:
    """Runs `run` on the config that the command line composes from configs/train.yaml.

    Plain key=value settings are composed here, so that a mistake in them is one line. Hydra's own flags (--multirun,
    --cfg, --help, ...) go to Hydra.
    """
    arguments = sys.argv[1:]
    if not any(argument.startswith("-") for argument in arguments):
        run(compose(arguments))
        return

    @command
    def task(cfg: DictConfig) -> None:
        run(checked(cfg, HydraConfig.get().runtime.choices))

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(task)()


def settings(
    arguments: list[str], usage: str | None, required: tuple[str, ...], optional: dict[str, str | None]
) -> tuple[dict[str, str | None], list[str]]:
    """key=value arguments as (those named in required or optional, with defaults; the others as they are).

    -h or --help among them prints usage and ends the command.
    """
    if {"-h", "--help"} & set(arguments):
        print((usage or "").strip())
        raise SystemExit(0)
    named: dict[str, str | None] = dict(optional)
    others = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument}: settings are written key=value")
        if key in required or key in optional:
            named[key] = value
        else:
            others.append(argument)
    for key in required:
        if key not in named:
            raise UserError(f"{key}= is missing; needed are {', '.join(f'{k}=...' for k in required)}")
    return named, others
