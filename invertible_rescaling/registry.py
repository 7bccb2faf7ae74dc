"""Names for models, sub-networks and latents, so that a string or a file can ask for one.

The registry stores plain callables and knows nothing of what they build. Built-in names and those of
third parties are registered in the same way:

Example:
    >>> from invertible_rescaling import create_model, list_models, register_subnet
    >>> list_models("iirn*")
    ['iirn_x2', 'iirn_x4', 'iirn_x8']
    >>> create_model("iirn_x4", blocks=(1, 1)).scale
    4
"""

import difflib
import fnmatch
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Generic, TypeVar, overload

from invertible_rescaling.errors import ConfigError, UnknownNameError

__all__ = [
    "create_model",
    "list_models",
    "load_plugins",
    "register_latent",
    "register_model",
    "register_subnet",
]

GROUP = "invertible_rescaling.plugins"  # of entry points
_BUILT_IN = "invertible_rescaling.models.factories"  # registers this library's own as it is imported
Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry(Generic[Factory]):
    """A name -> factory table that names the close ones when a name is unknown.

    Args:
        kind: what is registered, as it should read in a message (``"model"``).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Factory] = {}

    def register(self, name: str, factory: Factory) -> Factory:
        """Add ``factory`` under ``name``; registering the very same object again is allowed."""
        if not name or not isinstance(name, str):
            raise UnknownNameError(f"a {self.kind} needs a non-empty string as its name, got {name!r}")
        if not callable(factory):
            raise UnknownNameError(f"{self.kind} {name!r} must be callable, got {factory!r}")
        import_module(_BUILT_IN)  # whose names are taken
        present = self._factories.setdefault(name, factory)
        if present is not factory:
            raise UnknownNameError(
                f"a {self.kind} named {name!r} is registered already ({present!r}); choose another name"
            )
        return factory

    def __getitem__(self, name: str) -> Factory:
        import_module(_BUILT_IN)
        try:
            return self._factories[name]
        except (KeyError, TypeError):
            load_plugins()
        try:
            return self._factories[name]
        except (KeyError, TypeError):
            raise UnknownNameError(self._describe_unknown(name)) from None

    def __contains__(self, name: object) -> bool:
        import_module(_BUILT_IN)
        if name not in self._factories:
            load_plugins()
        return name in self._factories

    def names(self, pattern: str = "*") -> list[str]:
        """Return the registered names that match a shell-style ``pattern``, sorted."""
        import_module(_BUILT_IN)
        load_plugins()
        return sorted(fnmatch.filter(self._factories, pattern))

    def name_of(self, factory: object) -> str | None:
        """Return the name ``factory`` is registered under, or ``None``."""
        return next((name for name, known in self._factories.items() if known is factory), None)

    def _describe_unknown(self, name: object) -> str:
        meant = re.sub(r"(\d)x\b", r"x\1", str(name).lower().replace("-", "_"))  # IIRN_4x is iirn_x4
        close = difflib.get_close_matches(meant, self._factories, n=3, cutoff=0.5)
        hint = f"did you mean {_either(close)}?" if close else f"known: {', '.join(self.names()) or 'none'}"
        return f"no {self.kind} is named {name!r}; {hint}"


_plugins: set[str] = set()  # those that have been loaded, or have failed to
_loading = threading.RLock()


def load_plugins() -> None:
    """Load what other installed packages have to register, unless it has been loaded.

    A package names a module, or a function without arguments, that registers its models, sub-networks and
    latents, as an entry point of the group ``invertible_rescaling.plugins``. The registry calls this when a
    name is asked for that it does not know, and when names are listed: importing this library loads none.

    Warns:
        UserWarning: a plugin that raises is named, with what it raised; the others are loaded.

    Example:
        >>> from invertible_rescaling.registry import load_plugins
        >>> load_plugins()
    """
    with _loading:
        from importlib.metadata import entry_points  # here, since it takes as long as all else of an import

        for point in entry_points(group=GROUP):
            if f"{point.name} = {point.value}" in _plugins:
                continue
            _plugins.add(f"{point.name} = {point.value}")  # first: a plugin may well list names
            try:
                plugin = point.load()
                if callable(plugin):
                    plugin()
            except Exception as error:
                where = f" of {point.dist.name}" if point.dist else ""
                warnings.warn(
                    f"the plugin {point.name!r}{where} could not be loaded ({type(error).__name__}: {error})",
                    stacklevel=2,
                )


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)


models: Registry[Callable[..., Any]] = Registry("model")
subnets: Registry[Callable[..., Any]] = Registry("sub-network")
latents: Registry[Callable[..., Any]] = Registry("latent")

_pretrained: set[str] = set()


@overload
def register_model(factory: Factory, *, name: str | None = None, pretrained: bool = False) -> Factory: ...


@overload
def register_model(
    factory: None = None, *, name: str | None = None, pretrained: bool = False
) -> Callable[[Factory], Factory]: ...


def register_model(
    factory: Factory | None = None, *, name: str | None = None, pretrained: bool = False
) -> Any:
    """Register a model factory, as a decorator or by a call.

    Args:
        factory: callable ``factory(*, weights=None, **overrides) -> torch.nn.Module``.
        name: the name to register; the function's own name by default.
        pretrained: whether the factory has weights to offer (what ``list_models(pretrained=True)`` lists).

    Raises:
        UnknownNameError: the name is taken by another factory.

    Example:
        >>> from invertible_rescaling import InvertibleRescaler, create_model, register_model
        >>> @register_model
        ... def tiny_x2(*, weights=None, **overrides):
        ...     return InvertibleRescaler(2, blocks=1, **overrides)
        >>> create_model("tiny_x2").scale
        2
    """

    def decorate(function: Factory) -> Factory:
        key = name or str(getattr(function, "__name__", ""))
        models.register(key, function)
        if pretrained:
            _pretrained.add(key)
        return function

    return decorate if factory is None else decorate(factory)


def register_subnet(name: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """Register a sub-network for couplings: ``factory(in_channels, out_channels, **options) -> Module``.

    The module must keep height and width. Registered names can be given to
    :class:`~invertible_rescaling.InvertibleRescaler` and are what a checkpoint stores.

    Raises:
        UnknownNameError: the name is taken by another factory.

    Example:
        >>> from torch import nn
        >>> from invertible_rescaling import InvertibleRescaler, register_subnet
        >>> def conv3x3(in_channels, out_channels):
        ...     return nn.Conv2d(in_channels, out_channels, 3, padding=1)
        >>> _ = register_subnet("conv3x3", conv3x3)
        >>> InvertibleRescaler(2, blocks=1, subnet="conv3x3").config["subnet"]
        {'name': 'conv3x3'}
    """
    return subnets.register(name, factory)


def register_latent(name: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """Register a latent: ``factory(scale=scale, **options) -> Module`` mapping LR to z.

    The module maps ``(B, C, h, w)`` to ``(B, C * (scale**2 - 1), h, w)``.

    Raises:
        UnknownNameError: the name is taken by another factory.

    Example:
        >>> from invertible_rescaling import InvertibleRescaler, ZeroLatent, register_latent
        >>> class Nothing(ZeroLatent):
        ...     pass
        >>> _ = register_latent("nothing", Nothing)
        >>> InvertibleRescaler(2, blocks=1, latent="nothing").config["latent"]
        {'name': 'nothing'}
    """
    return latents.register(name, factory)


def create_model(name: str, weights: Any = None, **overrides: Any) -> Any:
    """Build a registered model by name.

    Args:
        name: one of :func:`list_models`.
        weights: what the factory takes: ``None`` for an untrained model; for this library's own models,
            ``"DEFAULT"``, a member of their enum, a checkpoint's path or its http(s) address.
        **overrides: arguments that replace the model's own (``blocks=(2, 2)``, ``latent="zero"``).

    Raises:
        UnknownNameError: no such model; the message names the close ones.
        ConfigError: ``pretrained=``, which other libraries have for ``weights="DEFAULT"``.

    Example:
        >>> from invertible_rescaling import create_model
        >>> sum(p.numel() for p in create_model("irn_x4").parameters())
        4355136
    """
    if "pretrained" in overrides:
        raise ConfigError(f'trained weights are asked for by name: create_model({name!r}, weights="DEFAULT")')
    return models[name](weights=weights, **overrides)


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """List the registered models whose names match a shell-style pattern.

    Args:
        pattern: for example ``"iirn*"``.
        pretrained: list only models that have weights to offer.

    Example:
        >>> from invertible_rescaling import list_models
        >>> list_models("irn_x?")
        ['irn_x2', 'irn_x4', 'irn_x8']
    """
    return [name for name in models.names(pattern) if not pretrained or name in _pretrained]
