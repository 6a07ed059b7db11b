from diptych.evaluation.groups import grouping, together


def test_groups_are_numbered_and_a_picture_without_one_stands_for_itself() -> None:
    found = together(["b", None, "a", "b", None, "a"])
    assert found is not None and found.tolist() == [0, 1, 2, 0, 3, 2]


def test_where_there_is_nothing_to_draw_but_pictures() -> None:
    assert together([None, None]) is None
    assert together(["a", "b", None]) is None
    assert together(["a", "a"]) is None
    assert together([]) is None


def test_what_intervals_rest_on_is_said() -> None:
    assert grouping([None] * 100) == []
    assert grouping([str(number // 2) for number in range(120)]) == [
        "the 120 test pictures belong to 60 groups, which intervals take as drawn whole"
    ]
    assert grouping([None] * 12) == [
        "12 pictures to test on are few: intervals are wide, and small gains cannot be shown"
    ]
    few = grouping([str(number // 20) for number in range(120)])
    assert few[1] == "6 groups to test on are few: intervals are wide, and small gains cannot be shown"
    assert grouping(["p\n1"] * 60) == [
        "all test pictures belong to the group 'p\ufffd1': intervals say nothing of other groups"
    ]
