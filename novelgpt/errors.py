"""What a user can cause, said so that the user can repair it.

Every script ends a failed run with two paragraphs on stderr and an exit code::

    error: data/train.json: line 3 column 7: expected ',' and found '"'

    hint: python clr_ctrl.py data/train.json
"""

EXIT_DONE = 0
EXIT_USAGE = 2  # a flag or config value is wrong
EXIT_INPUT = 3  # a novel, vocabulary, config file or piece set is wrong
EXIT_ENVIRONMENT = 4  # device, disk, rights, lock
EXIT_STATE = 5  # a saved model or checkpoint is damaged or does not fit
EXIT_DIVERGED = 6  # the loss is no longer a number
EXIT_PIPE = 141  # whoever read our output went away


class UserError(Exception):
    """A fault the user can repair.

    Args:
        message: what was found, where, and what was expected; one line or a short block.
        hint: the command or value that repairs it.
        code: exit status of the script, one of the EXIT_ constants.

    >>> error = UserError("--topp: found 2, expected 0 to 1", "--topp 0.9", EXIT_USAGE)
    >>> print(error)
    error: --topp: found 2, expected 0 to 1
    <BLANKLINE>
    hint: --topp 0.9
    """

    def __init__(self, message: str, hint: str, code: int = EXIT_INPUT):
        super().__init__(message, hint, code)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"error: {self.message}\n\nhint: {self.hint}"
