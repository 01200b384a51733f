from minigpt.corpus.table import as_html, as_lines

CELLS = [["step", "documents", "left"], ["<b>", "1,000", "7"], ["whitespace", "9", "12,345"]]


def test_names_stand_on_the_left_and_numbers_end_where_their_head_ends():
    assert as_lines(CELLS) == [
        "step        documents    left",
        "<b>             1,000       7",
        "whitespace          9  12,345",
    ]


def test_what_looks_like_html_in_a_cell_is_shown_and_not_obeyed():
    table = as_html(CELLS)
    assert "<b>" not in table and '<td style="text-align:left">&lt;b&gt;</td>' in table
    assert table.count("<tr>") == 3 and table.count("<th ") == 3 and table.count('right">') == 6
