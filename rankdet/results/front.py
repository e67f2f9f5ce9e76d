"""What the scripts share: how an outcome becomes an exit code and one line."""

import sys
from collections.abc import Callable

from rankdet.errors import UserError
from rankdet.results.queue import Interrupted


def exit_code(action: Callable[[], int]) -> int:
    """The action's own exit code; 2 after a mistake in the command, 128 + n when stopped by signal n (Ctrl-C: 130).

    Either is one line.
    """
    try:
        return action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
