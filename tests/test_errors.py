"""One root, and the built-in exception that plain Python would have raised."""

import pytest

from invertible_rescaling import errors

BUILT_IN = {
    "CheckpointError": RuntimeError,
    "ConfigError": ValueError,
    "DtypeError": TypeError,
    "ImageError": OSError,
    "InvertibilityError": AssertionError,
    "MissingDependencyError": ImportError,
    "ShapeError": ValueError,
    "UnknownNameError": LookupError,
    "ValueRangeError": ValueError,
}


def test_every_error_has_its_built_in_kin() -> None:
    assert set(errors.__all__) == {*BUILT_IN, "RescalingError", "MetadataWarning"}
    assert issubclass(errors.MetadataWarning, UserWarning)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_error_is_caught_by_the_root_and_by_its_kin(name: str) -> None:
    error = getattr(errors, name)
    for caught in (errors.RescalingError, BUILT_IN[name]):
        with pytest.raises(caught, match="what was wrong"):
            raise error("what was wrong")
    assert str(error("what was wrong")) == "what was wrong"
