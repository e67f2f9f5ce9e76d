"""python -m rankdet.torchrun [torchrun's own arguments] -m rankdet.train [key=value ...]: torchrun that hands codes on.

Where torchrun ends with 1 whatever happened, this ends with the exit code of the process that was the cause, such as
those of training/codes.py. SIGUSR1 and SIGUSR2 reach the processes, too, and no traceback follows what they said.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from rankdet.training.codes import STOPPED

CONSEQUENCES = (1, -signal.SIGTERM, -signal.SIGABRT)  # how one ends that another left alone; the last is nccl's
HANDED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"


def main() -> None:
    """The command."""
    try:
        run(parse_args([f"--signals-to-handle={HANDED_ON}", *sys.argv[1:]]))
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in sorted(failed.failures.items())}
        rank = next((rank for rank, code in codes.items() if code not in CONSEQUENCES), min(codes))
        print(f"process {rank} ended with exit code {codes[rank]}", file=sys.stderr)
        raise SystemExit(codes[rank] if codes[rank] > 0 else 128 - codes[rank]) from None  # negative: by that signal
    except SignalException as told:
        raise SystemExit(128 + signal.SIGINT if told.sigval == signal.SIGINT else STOPPED) from None


if __name__ == "__main__":
    main()
