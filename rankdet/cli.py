"""What the commands share: one clear line and an exit code for the user's mistakes, and Hydra's flags where wanted."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig

from rankdet.config import CONFIG_DIR, checked, compose
from rankdet.errors import UserError
from rankdet.option_files import opened
from rankdet.training.codes import BUSY, DEAD, NOT_FINITE
from rankdet.training.dead import DeadRun
from rankdet.training.distributed import leave

P = ParamSpec("P")
USER_ERROR, INTERRUPTED = 2, 130  # exit codes, beside those of training/codes.py


def command(main: Callable[P, None]) -> Callable[P, None]:
    """Wraps a command's main: a UserError, a non-finite value, a dead run, a full disk, Ctrl-C are a line and a code.

    Any other error is a traceback and code 1. After any of them a process that is one of many leaves at once.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except (UserError, FloatingPointError, DeadRun) as error:
            print(f"error: {error}", file=sys.stderr)
            codes = {UserError: USER_ERROR, DeadRun: DEAD}
            leave(next((code for kind, code in codes.items() if isinstance(error, kind)), NOT_FINITE))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            leave(INTERRUPTED)
        except SystemExit as error:
            if isinstance(error.code, int):
                leave(error.code)
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                print(f"error: {error}; make room, the same command continues", file=sys.stderr)
                leave(USER_ERROR)
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

    sys.argv[1:] = opened(arguments)
    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(hydra_task(run))()


def hydra_task(run: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """What Hydra calls with a config that it composed, here or, by submitit, as a job of Slurm's."""
    started = sys.modules["__main__"].__spec__
    if run.__module__ == "__main__" and started is not None:  # python -m: by the name that a job's process knows it by
        run = get_method(f"{started.name}.{run.__name__}")

    def task(cfg: DictConfig) -> None:
        def action() -> None:
            run(checked(cfg, HydraConfig.get().runtime.choices))

        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            slurm_job(action)
        else:
            command(action)()

    return task


def slurm_job(action: Callable[[], None]) -> None:
    """Runs a training as the Slurm job in which submitit started this process.

    What it raises goes back to who submitted it. Of several processes of a job, which meet here, each leaves at once
    instead, and Slurm ends the others. A run that is finished, or in other hands, is no failure.
    """
    import submitit  # an optional extra that nothing else needs

    if submitit.JobEnvironment().num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        action = command(action)
    try:
        action()
    except SystemExit as end:
        if end.code not in (0, BUSY):
            raise


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
