"""The parts of a model, as a user asks for them and as a file names them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from invertible_rescaling import registry
from invertible_rescaling.errors import ConfigError

__all__: list[str] = []  # for the rescaler alone


def check_scale(scale: int) -> int:
    """Return a scale that is a power of two; refuse any other."""
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2 or scale & (scale - 1):
        raise ConfigError(f"the scale must be a power of two of at least 2, got {scale!r}")
    return scale


def check_count(name: str, value: int, least: int) -> int:
    """Return an argument that is an integer and not below ``least``; refuse any other."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def blocks_per_stage(blocks: int | Sequence[int], levels: int) -> tuple[int, ...]:
    """Return one number of couplings for each stage, of one for all or one for each."""
    if not isinstance(blocks, int | Sequence) or isinstance(blocks, str):
        raise ConfigError(f"blocks must be an integer or one for each of {levels} stages, got {blocks!r}")
    counts = (blocks,) * levels if isinstance(blocks, int) else tuple(blocks)
    if len(counts) != levels:
        raise ConfigError(f"blocks needs one number for each of {levels} stages, got {blocks!r}")
    return tuple(check_count("blocks", count, least=0) for count in counts)


def resolve_subnet(subnet: Any) -> tuple[Callable[[int, int], nn.Module], dict[str, Any] | str]:
    """Return the factory and what a checkpoint would write for it (a message where it cannot)."""
    if isinstance(subnet, str):
        subnet = {"name": subnet}
    if isinstance(subnet, Mapping):
        factory, options = _look_up(registry.subnets, subnet, 3, 3)
        made = partial(factory, **options) if options else factory
        return made, _spec(factory, subnet["name"], options)
    if not callable(subnet) or isinstance(subnet, nn.Module):
        raise ConfigError(
            "subnet must be a name, a dictionary or a factory (in_channels, out_channels) -> Module, "
            f"got {subnet!r}"
        )
    plain = subnet.func if isinstance(subnet, partial) and not subnet.args else subnet
    options = subnet.keywords if isinstance(subnet, partial) and not subnet.args else {}
    name = registry.subnets.name_of(plain)
    if name is None:
        return subnet, f"{subnet!r} (register_subnet gives it a name)"
    return subnet, _spec(plain, name, options)


def resolve_latent(latent: Any, scale: int) -> tuple[nn.Module, dict[str, Any] | str]:
    """Return the latent, bound to the scale, and what a checkpoint would write for it."""
    if isinstance(latent, str):
        latent = {"name": latent}
    if isinstance(latent, Mapping):
        factory, options = _look_up(registry.latents, latent, scale=scale)
        return factory(scale=scale, **options), _spec(factory, latent["name"], options)
    if not isinstance(latent, nn.Module):
        raise ConfigError(
            f"latent must be a name, a dictionary or a module that maps LR to z, got {latent!r}"
        )
    options = {}
    if hasattr(latent, "bind"):  # the library's own; any other module is taken as it is
        own: Any = latent
        own.bind(scale)
        options = own.options
    name = registry.latents.name_of(type(latent))
    if name is None:
        return latent, f"{latent!r} (register_latent gives it a name)"
    return latent, _spec(type(latent), name, options)


def _look_up(
    table: registry.Registry[Any], spec: Mapping[str, Any], *args: Any, **kwargs: Any
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Find a factory and check that it takes the options.

    ``args`` and ``kwargs`` stand for what the factory will be called with besides its options.
    """
    if "name" not in spec:
        raise ConfigError(f"a {table.kind} given as a dictionary needs a 'name', got {dict(spec)!r}")
    factory = table[spec["name"]]
    options = {key: value for key, value in spec.items() if key != "name"}
    signature = inspect.signature(factory)
    try:
        signature.bind(*args, **kwargs, **options)
    except TypeError as error:
        raise ConfigError(f"the {table.kind} {spec['name']!r} does not take {options!r}: {error}") from error
    return factory, options


def _spec(factory: Callable[..., Any], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part as a file stores it; options at their defaults are left out: equal parts, equal specs."""
    parameters = inspect.signature(factory).parameters
    changed = {k: v for k, v in options.items() if k not in parameters or parameters[k].default != v}
    return {"name": name, **changed}


def require_registered(what: str, spec: dict[str, Any] | str) -> dict[str, Any]:
    """Return a spec that a file can hold; raise ConfigError with the message that stands for one."""
    if isinstance(spec, str):
        raise ConfigError(f"the {what} has no registered name that a configuration could store: {spec}")
    return dict(spec)
