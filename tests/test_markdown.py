from fairway.markdown import table


def test_cells_cannot_break_a_table():
    found = table(["a", "b|"], [["|x|", "two\nlines"], ["", "1"]], numbers=(1,))
    assert found.splitlines() == [
        "| a     |       b\\| |",
        "|:------|----------:|",
        "| \\|x\\| | two lines |",
        "|       |         1 |",
    ]


def test_numbers_stay_as_they_are_written_and_no_row_is_no_mistake():
    cells = ["1.50", "1e3", "0012"]
    assert [cell.strip() for cell in table(["a", "b", "c"], [cells]).splitlines()[-1].strip("|").split("|")] == cells
    assert table(["a", "b"], []).startswith("| a")
