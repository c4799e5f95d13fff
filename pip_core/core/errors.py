"""The one exception meant to be read by a person."""


class UserError(Exception):
    """Something the user can put right.

    The message is one or two plain sentences: what is wrong, and what would be right. The command
    line prints it and exits with code 2; the page shows it; neither shows a traceback.
    """
