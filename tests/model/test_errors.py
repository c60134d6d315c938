"""Errors carry what they know, and survive the trip to another process."""

import inspect
import pickle

import pytest

from workledger import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.WorkledgerError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_attributes(kind):
    error = pickle.loads(pickle.dumps(kind("what happened", field="name", value=3)))
    assert type(error) is kind
    assert str(error) == "what happened"
    assert (error.field, error.value) == ("name", 3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_tree_at_the_top_of_the_file_names_every_error(kind):
    assert kind.__name__ in errors.__doc__
    assert kind.__name__ in errors.__all__


def test_an_attribute_that_was_not_given_is_an_attribute_error():
    with pytest.raises(AttributeError):
        _ = errors.NotFound("x").nothing
