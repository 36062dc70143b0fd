"""What Ray programs import from ``ray._raylet``."""

from pydmrpc._core import ObjectRef
from pydmrpc._generator import DynamicObjectRefGenerator, ObjectRefGenerator

__all__ = ["DynamicObjectRefGenerator", "ObjectRef", "ObjectRefGenerator"]
