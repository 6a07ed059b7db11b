"""Which class each pixel shows: a linear probe on a backbone's maps, judged as every other evaluation is."""
