"""Words on sheets."""

from kao.reports.sheets import wrapped
from kao.visualisation import outline_font


def test_a_text_with_odd_names_is_wrapped_in_lines_that_can_be_drawn():
    lines = wrapped(
        "the real pictures of fl\udce4chen and \x1b[31mred\ncats", outline_font(12), 120
    )
    assert " ".join(lines) == r"the real pictures of fl\xe4chen and \x1b[31mred cats"
    assert len(lines) > 1
