"""The errors that trimgate raises on purpose."""

from pathlib import Path


class TrimgateError(Exception):
    """Base of every error that trimgate raises on purpose."""


class InvalidInput(TrimgateError, ValueError):
    """Something that the user gave is wrong; the message is one line that says how to mend it.

    Args:
        problem: What is wrong, naming the key and the value where there is one.
        file: The file in which it is wrong.
        key: The key (config key, column, tensor name) at fault.
        value: The value at fault; shortened to 60 characters in the message.
        mend: What the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        key: str | None = None,
        value: object = None,
        mend: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.key = key
        self.value = value
        self.mend = mend
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = []
        if self.file is not None:
            parts.append(f"{self.file}: ")
        if self.key is not None:
            parts.append(f"{self.key}")
            if self.value is not None:
                shown = repr(self.value)
                parts.append(f" = {shown if len(shown) <= 60 else shown[:57] + '...'}")
            parts.append(": ")
        parts.append(self.problem.rstrip("."))
        if self.mend:
            parts.append(f"; {self.mend.rstrip('.')}")
        return " ".join("".join(parts).split())


class NotApplicable(InvalidInput):
    """A technique or a runtime cannot work on this model or target; the message says why."""


class MissingExtra(InvalidInput):
    """An optional dependency is needed and not installed.

    Args:
        package: The import name that is missing.
        extra: The extra of trimgate that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the Python package {package!r} is needed and not installed",
            mend=f"pip install 'trimgate[{extra}]'",
        )
