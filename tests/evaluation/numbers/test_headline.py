from diptych.evaluation.numbers.headline import PRECISION, R2, TOP1


def test_numbers_are_written_in_their_units() -> None:
    assert (TOP1.written(0.6614), TOP1.written(0.5, "_"), TOP1.number(0.6614)) == ("66.1 %", "50.0_%", "66.1")
    assert (R2.written(0.6125), R2.written(-0.12), R2.between(-0.5, 1)) == ("0.613", "-0.120", "-0.500 to 1.000")
    assert (PRECISION.written(None), R2.number(None)) == ("–", "–")


def test_the_sign_of_a_gain_is_kept() -> None:
    assert (TOP1.signed(7.12), TOP1.signed(-0.01), R2.signed(0.0004)) == ("+7.1", "-0.0", "+0.000")
