"""What was typed and cannot be: the words of the parser of command lines in ours."""

import typer
from pydantic import ValidationError

_EXPECTED = {
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "greater_than": "more than {gt}",
    "less_than": "less than {lt}",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_parsing": "a number",
}
"""What is expected, by the kind of mistake; braces hold the bound."""


def in_words(error: typer.TyperException) -> str:
    """A mistake in a command line, in a sentence that names the option and what was typed.

    Args:
        error: What the parser raised; kinds without words of ours keep its own.
    """
    cause = error.__cause__
    if not (
        isinstance(error, typer.BadParameter)
        and error.param is not None
        and isinstance(cause, ValidationError)
    ):
        return error.format_message()
    first = cause.errors()[0]
    if first["type"] not in _EXPECTED:
        return error.format_message()
    expected = _EXPECTED[first["type"]].format_map(first.get("ctx", {}))
    option = max(error.param.opts, key=len)
    return f"{option} = {first['input']}; expected {expected}."
