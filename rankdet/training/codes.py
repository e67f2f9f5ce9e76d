"""Exit codes of a training that whoever started it can act on."""

NOT_FINITE = 3  # the loss or a gradient was not finite: an outcome, not a fault of the program
DEAD = 4  # the loss sat at 1 for runtime.dead_after steps: likewise an outcome
BUSY = 75  # another process is training this run (EX_TEMPFAIL)
STOPPED = 99  # told to stop; the same command continues (what Grid Engine puts a job back into its queue for)
