"""Which of a machine's GPUs each of the trainings gets that run on it at once."""

import os

import torch

from rankdet.errors import UserError


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name each."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def shares(visible: list[str], gpus: int, jobs: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each of `jobs` trainings at once, of `gpus` GPUs each; none where there is no GPU.

    gpus 0: one each, dealt out in turn, so that with fewer GPUs than trainings some share one. Else none is shared:
    UserError where there are too few.
    """
    if gpus == 0:
        return [visible[job % len(visible)] for job in range(jobs)] if visible else []
    if gpus * jobs > len(visible):
        fits = len(visible) // gpus
        hint = f"set JOBS={fits}" if fits else f"set GPUS={len(visible)}" if visible else "leave GPUS out"
        shared = ", or GPUS=0 to let trainings share a GPU" if gpus == 1 and fits else ""
        need = f"JOBS={jobs} trainings on GPUS={gpus} each need {gpus * jobs} GPUs, {len(visible)} can be used"
        raise UserError(f"{need}: {hint}{shared}")
    return [",".join(visible[job * gpus : (job + 1) * gpus]) for job in range(jobs)]
