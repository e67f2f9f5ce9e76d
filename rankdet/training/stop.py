"""Told to stop: a training ends after the step under way, with a checkpoint, and with an exit code of its own.

SIGTERM is what queues and torchrun send ahead of SIGKILL, SIGUSR1 what Slurm is usually asked to send ahead of a time
limit, and SIGUSR2 what submitit asks it to send.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rankdet.training.codes import STOPPED
from rankdet.training.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
NOTE = "rankdet/stop_after"  # where the processes of one training find the step to stop after


class Stop:
    """Whether this process was told to stop, and after which step all processes of its training do."""

    def __init__(self, here: World) -> None:
        """Nothing is changed until obeyed() or noted()."""
        self.here = here
        self.signum: int | None = None
        self.handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}  # before us, such as submitit's

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Within it a signal ends the process at once: SystemExit(STOPPED)."""
        with self._handling(self._obey):
            yield

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within it a signal ends nothing: after() answers to it. One that it did not get to is obeyed at the end."""
        with self._handling(self._note):
            yield
        if self.signum is not None:
            self._obey(self.signum, None)

    def after(self, step: int) -> bool:
        """Whether the training is to stop after this step, which it has just done: the same on all its processes.

        A process on its own stops now. Of several, who is told first writes the number of the next step but one into
        the store at which they met, and all stop after that: on its way each waits for outputs of weights that have the
        next step's gradients from everyone, so whoever ends it finds the number. Of the next step itself a GPU's
        process may not have waited for anything. It costs a look into the store a step, but no exchange between all of
        them and no GPU's time.
        """
        store = self.here.store
        if store is None:
            return self.signum is not None
        if store.check([NOTE]):
            return step >= int(store.get(NOTE))
        if self.signum is not None:
            store.set(NOTE, str(step + 2))
        return False

    def leave(self) -> NoReturn:
        """Ends this process as all of its training end, when the checkpoint is there.

        Only the first one says STOPPED: another that failed before it is through would have it killed.
        """
        self._hand_on(self.signum or signal.SIGTERM)  # the latter where another process was told
        raise SystemExit(STOPPED if self.here.is_main else 0)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum

    def _obey(self, signum: int, _frame: FrameType | None) -> NoReturn:
        self._hand_on(signum)
        raise SystemExit(STOPPED)

    def _hand_on(self, signum: int) -> None:
        """Says it once, and lets who handled the signal before us act on it: that may end the process otherwise."""
        if self.here.is_main:
            print(f"stopped by {signal.Signals(signum).name}; the same command continues", file=sys.stderr, flush=True)
        handler = self.handlers[signum]
        if callable(handler):
            handler(signum, None)

    @contextmanager
    def _handling(self, handler: "signal._HANDLER") -> Iterator[None]:
        before = {signum: signal.signal(signum, handler) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, earlier in before.items():
                signal.signal(signum, earlier)
