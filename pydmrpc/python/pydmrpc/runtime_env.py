"""What Ray programs import from ``ray.runtime_env``."""

from __future__ import annotations

from typing import Any


class RuntimeEnv(dict[str, Any]):
    """An environment of workers, as ``runtime_env`` takes it: a dict with a method for each field.

    Example::

        runtime_env = RuntimeEnv(env_vars={"LEVEL": "3"}, working_dir="data")
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})

    def env_vars(self) -> dict[str, str]:
        """The variables."""
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        """The working directory; empty if there is none."""
        return str(self.get("working_dir") or "")

    def py_modules(self) -> list[str]:
        """Folders of modules."""
        return list(self.get("py_modules") or [])

    def to_dict(self) -> dict[str, Any]:
        """The fields."""
        return dict(self)
