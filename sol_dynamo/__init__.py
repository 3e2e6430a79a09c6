"""sol_dynamo: a deep-learning compiler behind torch.compile(model, backend="sol")."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
_LAZY = {
    "optimize": ".capture:optimize",
    "explain": ".report:explain",
    "refresh": ".runtime.weights:refresh",
}
__all__ = ["__version__", "device", *_LAZY]


def __getattr__(name: str) -> Any:
    """Import what a user asks for when it is asked for: `import sol_dynamo` costs nothing."""
    if name == "device":
        from importlib import import_module

        return import_module(".device", __name__)
    if name in _LAZY:
        from importlib import import_module

        module, attribute = _LAZY[name].split(":")
        return getattr(import_module(module, __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
