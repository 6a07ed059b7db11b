import pytest

from diptych.errors import byte_size


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (2e6, "2 MB"),
        (3.254e9, "3.25 GB"),
        (999.4e6, "999 MB"),
        (999.6e6, "1 GB"),
        (4e12, "4 TB"),
        (1234e12, "1,234 TB"),
    ],
)
def test_bytes_are_told_in_their_own_unit(count, told):
    assert byte_size(count) == told
