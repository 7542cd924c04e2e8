"""Every error that bakeoff raises on purpose.

    BakeoffError
    ├── MatrixError        the matrix file, an override or a selection is wrong
    ├── PluginError        a plugin is unknown, broken, or claimed twice
    ├── DataError          a data file or a row is wrong
    ├── ModelError         a model cannot be found, read or loaded as asked
    ├── StoreError         a run on disk is unreadable, of another version, or in use
    ├── RoleError          an adapter was switched where that would corrupt gradients
    ├── Incompatible       task, model and algorithm do not go together
    └── BudgetError        a budget limits nothing, or a limit is not a positive number

A message says what happened and why; ``fix`` says how to mend it. Both are printed.
"""


class BakeoffError(Exception):
    """Base of all errors above. ``fix`` is one sentence in the imperative, or empty."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.fix}" if self.fix else message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions rebuild from args alone when they cross a process border; keep `fix`.
        return _rebuild, (type(self), self.args[0], self.fix)


def _rebuild(kind: type[BakeoffError], message: str, fix: str) -> BakeoffError:
    return kind(message, fix=fix)


class MatrixError(BakeoffError):
    """The matrix file, an override or a selection is wrong."""


class PluginError(BakeoffError):
    """A plugin is unknown, broken, or claimed by two distributions."""


class DataError(BakeoffError):
    """A data file or one of its rows is wrong."""


class ModelError(BakeoffError):
    """A model cannot be found, read, or loaded as asked."""


class StoreError(BakeoffError):
    """A run on disk is unreadable, was written by another schema version, or is in use."""


class RoleError(BakeoffError):
    """An adapter was switched where the switch would corrupt gradients."""


class Incompatible(BakeoffError):  # noqa: N818
    """Task, model and algorithm do not go together, such as rows that are all too long: the cell is not run, and the
    report says why."""


class BudgetError(BakeoffError):
    """A budget limits nothing, or one of its limits is not a positive number."""


class PluginFailure(Exception):  # noqa: N818
    """A plugin's own code raised; its exception is the ``__cause__``. Fails one cell, as "plugin_error"."""
