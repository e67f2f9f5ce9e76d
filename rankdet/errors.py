"""The one exception for mistakes in a user's files, settings or machine."""


class UserError(Exception):
    """Something the user can mend: the message names the file, key or value and says what to do.

    The commands print it as one line and exit with code 2; everything else keeps its traceback, since it is our bug.
    """
