"""What people typed is shown by a page, and does nothing in it."""

import pytest

from kao.exchange.markdown import plain


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("CC BY 4.0, by: me_too", "CC BY 4.0, by: me_too"),
        ("one\n\n# two\tthree ", "one # two three"),
        ("# Mine", "\\# Mine"),
        ("fl\udce4chen\x1b[0m", r"fl\\xe4chen\\x1b\[0m"),
        ("a | b", "a \\| b"),
        ("[x](y) <b> *c* `d`", "\\[x\\](y) \\<b\\> \\*c\\* \\`d\\`"),
        ("a\\|b", "a\\\\\\|b"),
    ],
)
def test_a_text_is_one_line_without_markup(typed, shown):
    assert plain(typed) == shown
