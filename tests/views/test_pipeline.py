"""The views themselves: both engines against torchvision picture by picture, against each other, and what they keep."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torchvision.transforms import functional as reference

from diptych.errors import ConfigError
from diptych.views import ops, pipeline
from diptych.views.draws import Shape, draw_views
from diptych.views.pipeline import ViewMaker, ViewsConfig

ENGINES = ["torch", pytest.param("kernel", marks=pytest.mark.skipif(not pipeline._kernel(), reason="needs numba"))]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def maker(engine):
    return lambda config, size: ViewMaker(config, size, engine=engine)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=12, height=24, width=24, seed=0):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(seed))


def quiet(**changes):
    """A configuration in which nothing happens but what is named."""
    return ViewsConfig(
        **{"crop": "padded", "horizontal_flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0} | changes
    )


def test_a_padded_crop_larger_than_the_pictures_says_what_to_type(maker):
    with pytest.raises(ConfigError, match="--crop-padding 4 or more"):
        maker(quiet(), 32)(pictures(height=25, width=40), seeded())
    (view, _) = maker(quiet(crop_padding=4), 32)(pictures(height=25, width=40), seeded())
    assert view.shape == (12, 3, 32, 32)


def by_torchvision(image, drawn, row, config, size, radius):
    """One view of one picture of values 0..1, the slow way, from the decisions of ``drawn``; no angle, no noise."""
    channels = len(image)
    top, left, height, width = (int(value) for value in drawn.box[:, row])
    if config.crop == "padded":
        image = reference.crop(reference.pad(image, [config.crop_padding]), top, left, height, width)
    else:
        image = reference.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    if drawn.horizontal_flip[row]:
        image = reference.hflip(image)
    if drawn.vertical_flip[row]:
        image = reference.vflip(image)
    image = image.rot90(int(drawn.quarters[row]), (1, 2))
    if drawn.jitter[row]:
        for number in drawn.order[row].tolist():
            amount = float(drawn.amounts[row, number])
            if number == 0 and config.brightness_mode == "add":
                image = (image + amount).clamp(0, 1)
            elif number == 0:
                image = (image * amount).clamp(0, 1)
            elif number == 1 and channels != 3:
                image = torch.cat([reference.adjust_contrast(band[None], amount) for band in image])
            elif channels == 3:
                names = ("adjust_contrast", "adjust_saturation", "adjust_hue")
                image = getattr(reference, names[number - 1])(image, amount)
        image = (image * drawn.gain[row][:, None, None]).clamp(0, 1)
    if drawn.grayscale[row] and channels == 3:
        image = reference.rgb_to_grayscale(image, 3)
    if drawn.blur[row]:
        sigma = float(drawn.sigma[row])
        image = reference.gaussian_blur(image, [2 * radius + 1] * 2, [sigma, sigma])
    if drawn.solarize[row]:
        image = torch.where(image >= 0.5, 1 - image, image)
    mean = torch.tensor(config.mean)[:, None, None].expand_as(image)
    return torch.where(drawn.drop[row][:, None, None], mean, image)


EVERYTHING = {
    "paper": {"vertical_flip": 0.5},
    "keras": {"jitter_order": "fixed", "brightness_mode": "add", "crop": "padded", "crop_padding": 5},
    "certain": {"jitter": 1.0, "blur": 1.0, "grayscale": 0.0, "hue": 0.5},
    "new": {"rotate90": 0.75, "solarize": 0.5, "band_gain": 0.5, "channel_drop": 0.3},
    "padded and turned": {"crop": "padded", "crop_padding": 5, "rotate90": 1.0, "vertical_flip": 0.5},
    "multi-crop": {"local_views": 2, "local_size": 11},
}


def config_for(channels, **changes):
    if channels != 3:
        changes |= {"saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
    mean, std = (0.4, 0.5, 0.6, 0.3, 0.2), (0.2, 0.3, 0.25, 0.2, 0.3)
    return ViewsConfig(mean=mean[:channels], std=std[:channels], **changes)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", EVERYTHING)
def test_views_equal_torchvision_picture_by_picture(maker, name, channels, count):
    config, size = config_for(channels, **EVERYTHING[name]), 20
    images = torch.randint(0, 256, (count, channels, 22, 27), dtype=torch.uint8, generator=seeded())
    make = maker(config, size)
    every = draw_views(config, Shape(count=count, channels=channels, height=22, width=27), size, seeded(5))
    views = make.draw(images, seeded(5))
    assert len(views) == len(every) == 2 + config.local_views
    for view, drawn in zip(views, every, strict=True):
        radius = make.blur_radius(drawn.size)
        expected = [by_torchvision(images[i] / 255, drawn, i, config, drawn.size, radius) for i in range(count)]
        # Hue divides by the spread of nearly gray pixels, so rounding before it grows: hence 1e-4. Solarisation
        # jumps at a half, where rounding may fall on either side.
        apart = (view - torch.stack(expected)).abs()
        assert (apart > 1e-4).sum() <= (3 if config.solarize else 0)


@pytest.mark.skipif(not pipeline._kernel(), reason="needs numba")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", [*EVERYTHING, "angle", "noise", "small"])
def test_the_two_engines_make_the_same_views(name, channels, dtype):
    further = {
        "angle": {"rotate": 180.0, "rotate90": 0.5, "vertical_flip": 0.5},
        "noise": {"noise": 0.5, "rotate": 20.0, "crop": "padded", "crop_padding": 3},
        "small": {"crop_scale": (0.9, 1.0), "rotate90": 0.5, "vertical_flip": 0.5},  # boxes larger than the view
    }
    floats = {"low": (-3.0,) * channels, "high": (2.5,) * channels} if dtype == torch.float32 else {}
    config = config_for(channels, **(EVERYTHING | further)[name], **floats)
    shape, size = (9, channels, 26, 31), 16 if name == "small" else 24
    images = 255 * torch.rand(shape, generator=seeded())
    images = images / 50 - 3 if dtype == torch.float32 else (images * (257 if dtype == torch.uint16 else 1)).to(dtype)
    views = [ViewMaker(config, size, engine=engine)(images, seeded(2)) for engine in ("torch", "kernel")]
    for one, other in zip(*views, strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert other.is_contiguous(memory_format=torch.channels_last)
        apart = (one - other).abs() * torch.tensor(config.std)[:, None, None]
        assert (apart > 2e-5 if config.rotate else apart > 1e-5).sum() <= (2 if config.solarize else 0)


def turned(image, drawn, row, size):
    """The picture where each pixel of a turned view lies, by SciPy in float64, from first principles."""
    top, left, height, width = (float(value) for value in drawn.box[:, row])
    angle = float(drawn.angle[row])
    down, right = np.mgrid[:size, :size] + 0.5 - size / 2
    # A view turned against the clock by `angle` shows at (right, down) what lay that much further with the clock.
    right, down = right * math.cos(angle) - down * math.sin(angle), right * math.sin(angle) + down * math.cos(angle)
    for _ in range(int(drawn.quarters[row])):
        right, down = -down, right
    right = -right if drawn.horizontal_flip[row] else right
    down = -down if drawn.vertical_flip[row] else down
    at = [top + height / 2 + down * height / size - 0.5, left + width / 2 + right * width / size - 0.5]
    return np.stack([map_coordinates(band.astype(float), at, order=1, mode="reflect") for band in image])


def test_an_angle_turns_flips_and_quarters_by_one_sampling(maker):
    config = config_for(3, jitter=0.0, blur=0.0, grayscale=0.0, rotate=180.0, rotate90=0.75, vertical_flip=0.5)
    images = pictures(30, height=26, width=31)
    (drawn, _) = draw_views(config, Shape(count=30, channels=3, height=26, width=31), 20, seeded(1))
    view = maker(config, 20).draw(images, seeded(1))[0].numpy()
    for row in range(30):
        np.testing.assert_allclose(view[row], turned(images[row].numpy() / 255, drawn, row, 20), atol=2e-5)


def test_an_angle_turns_against_the_clock_as_torchvision_does(maker):
    config = quiet(rotate=90.0)
    images = pictures(8)
    (drawn, _) = draw_views(config, Shape(count=8, channels=3, height=24, width=24), 24, seeded(1))
    view = maker(config, 24).draw(images, seeded(1))[0]
    inside = ((torch.arange(24) - 11.5)[:, None] ** 2 + (torch.arange(24) - 11.5) ** 2) < 11**2
    for row in range(8):
        angle = math.degrees(drawn.angle[row])
        expected = reference.rotate(images[row] / 255, angle, reference.InterpolationMode.BILINEAR)
        torch.testing.assert_close(view[row][:, inside], expected[:, inside], atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32], ids=str)
def test_every_bit_of_deep_pictures_is_kept(maker, dtype):
    values = torch.arange(65536, dtype=torch.int32)[: 64 * 64 * 16].reshape(16, 1, 64, 64)
    images = values.to(dtype)
    floats = {"low": (0.0,), "high": (65535.0,)} if dtype == torch.float32 else {}
    config = config_for(1, crop="padded", horizontal_flip=0.0, jitter=0.0, blur=0.0, **floats)
    view, _ = maker(config, 64).draw(images, seeded())
    assert torch.equal(view, values / 65535)
    assert len(view.unique()) == 65536


def test_float_pictures_are_scaled_by_each_channels_own_range_and_clamped(maker):
    images = torch.tensor([-5.0, 10.0])[None, :, None, None].repeat(1, 1, 8, 8)
    images[:, :, 0, 0] = 1e9
    config = config_for(2, crop="padded", horizontal_flip=0.0, jitter=0.0, blur=0.0, low=(-10.0, 5.0), high=(0.0, 25.0))
    view, _ = maker(config, 8).draw(images, seeded())
    torch.testing.assert_close(view[0, :, 4, 4], torch.tensor([0.5, 0.25]))
    assert (view[0, :, 0, 0] == 1).all()


def test_padding_is_zero_after_scaling(maker):
    images = torch.full((1, 1, 8, 8), 7.0)
    config = config_for(1, crop="padded", crop_padding=8, jitter=0.0, blur=0.0, low=(-10.0,), high=(10.0,))
    for view in maker(config, 24).draw(images, seeded()):
        torch.testing.assert_close(view.unique(), torch.tensor([0.0, 0.85]))


def test_noise_is_added_in_each_channels_own_std(maker):
    config = config_for(3, crop="padded", horizontal_flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, noise=0.4)
    images = torch.full((6, 3, 24, 24), 128, dtype=torch.uint8)
    every = draw_views(config, Shape(count=6, channels=3, height=24, width=24), 24, seeded(1))
    for view, drawn in zip(maker(config, 24).draw(images, seeded(1)), every, strict=True):
        level = drawn.noise[:, None, None, None] * torch.tensor(config.std)[:, None, None]
        expected = (128 / 255 + level * ops.noise(drawn.noise_seed, 3, 24)).clamp(0, 1)
        torch.testing.assert_close(view, expected, atol=1e-6, rtol=0)


def test_a_channel_left_out_is_0_after_normalisation(maker):
    config = config_for(3, channel_drop=0.5, noise=0.5, blur=1.0, solarize=1.0)
    (drawn, _) = draw_views(config, Shape(count=12, channels=3, height=24, width=24), 24, seeded(1))
    view, _ = maker(config, 24)(pictures(), seeded(1))
    assert torch.equal((view.abs() < 1e-6).all((2, 3)), drawn.drop)
    assert drawn.drop.any()


def test_settings_that_the_pictures_cannot_have_are_our_own_mistake(maker):
    with pytest.raises(AssertionError, match="for_channels"):
        maker(ViewsConfig(mean=(0.5,), std=(0.5,)), 24)(pictures()[:, :1], seeded())
    with pytest.raises(AssertionError, match="measured"):
        maker(ViewsConfig(mean=(), std=()), 24)


def test_many_threads_and_pieces_make_what_one_does():
    config = ViewsConfig(blur=0.5)
    images = pictures(100)
    make = ViewMaker(config, 24)
    threads = torch.get_num_threads()
    views = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            views.append(make(images, seeded()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*views, strict=True))


def test_the_torch_engine_makes_the_same_views_in_portions(monkeypatch):
    images = pictures(30)
    make = ViewMaker(ViewsConfig(rotate90=0.5, noise=0.1, channel_drop=0.1), 24, engine="torch")
    whole = make(images, seeded())
    monkeypatch.setattr(pipeline, "CACHE", 4 * 3 * 24 * 24 * 7)
    for one, other in zip(whole, make(images, seeded()), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_gpu_gets_torch_and_a_cpu_the_kernel_where_it_can_be_had():
    assert ViewMaker(ViewsConfig(), 24, "cuda").engine == "torch"
    assert ViewMaker(ViewsConfig(), 24).engine == ("kernel" if pipeline._kernel() else "torch")


def test_the_kernel_is_refused_where_it_cannot_be_had():
    with pytest.raises(ConfigError, match="on a CPU, not on cuda"):
        ViewMaker(ViewsConfig(), 24, "cuda", engine="kernel")


@pytest.mark.skipif(not pipeline._kernel(), reason="needs numba")
def test_pictures_that_lie_elsewhere_than_the_kernel_are_refused():
    with pytest.raises(ConfigError, match="device='meta'"):
        ViewMaker(ViewsConfig(), 24)(pictures().to("meta"), seeded())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1)])
def test_pictures_of_one_pixel_a_side_can_be_turned(maker, height, width):
    images = pictures(20, height, width)
    config = ViewsConfig(jitter=0.0, grayscale=0.0, blur=0.0, rotate=180.0)
    (drawn, _) = draw_views(config, Shape(count=20, channels=3, height=height, width=width), 12, seeded(1))
    view = maker(config, 12).draw(images, seeded(1))[0].numpy()
    for row in range(20):
        np.testing.assert_allclose(view[row], turned(images[row].numpy() / 255, drawn, row, 12), atol=2e-5)


def test_a_call_is_draw_normalised(maker):
    config = ViewsConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = pictures()
    make = maker(config, 24)
    for normalised, plain in zip(make(images, seeded()), make.draw(images, seeded()), strict=True):
        assert plain.dtype == normalised.dtype == torch.float32
        assert 0 <= plain.min() and plain.max() <= 1
        expected = reference.normalize(plain, list(config.mean), list(config.std))
        torch.testing.assert_close(normalised, expected)


def test_the_seed_decides_everything_and_the_global_generator_nothing(maker):
    images = pictures()
    make = maker(ViewsConfig(), 24)
    before = torch.random.get_rng_state()
    first, again, other = make(images, seeded(1)), make(images, seeded(1)), make(images, seeded(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_one_generator_gives_a_new_pair_at_every_call(maker):
    images = pictures()
    generator = seeded()
    make = maker(ViewsConfig(), 24)
    assert not torch.equal(make(images, generator)[0], make(images, generator)[0])


def test_the_views_differ_but_row_i_of_both_is_picture_i(maker):
    colours = torch.randperm(250, generator=seeded())[:20]
    images = colours.to(torch.uint8)[:, None, None, None].expand(20, 3, 24, 24)
    config = ViewsConfig(jitter=0.0, grayscale=0.0)
    for view in maker(config, 24).draw(images, seeded()):
        torch.testing.assert_close(view, images / 255, atol=1e-5, rtol=0)
    one, two = maker(config, 24).draw(pictures(20), seeded())
    assert (one != two).flatten(1).any(1).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "resized"},
        {"crop_padding": 12},
        {"jitter": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        {"jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
        {"blur": 1.0},
    ],
    ids=["resized", "padded", "brightness", "hue", "blur"],
)
def test_parameters_differ_within_a_batch(maker, changes):
    same = pictures(1).expand(8, -1, -1, -1)
    view = maker(quiet(**changes), 24).draw(same, seeded())[0]
    different = (view[:, None] - view[None]).abs().amax((2, 3, 4)) > 1e-4
    assert different.sum() >= 8 * 7 - 2  # two padded crops of eight may fall on one place


def test_jitter_leaves_the_pictures_it_was_not_drawn_for(maker):
    config = quiet(jitter=0.5)
    images = pictures(40)
    view = maker(config, 24).draw(images, seeded())[0]
    jittered = draw_views(config, Shape(count=40, channels=3, height=24, width=24), 24, seeded())[0].jitter
    untouched = (view == images / 255).flatten(1).all(1)
    assert torch.equal(untouched, ~jittered)
    assert 5 < jittered.sum() < 35


def test_nothing_asked_nothing_done_and_the_input_is_not_written(maker):
    images = pictures()
    before = images.clone()
    one, two = maker(quiet(), 24).draw(images, seeded())
    assert torch.equal(one, images / 255) and torch.equal(two, one)
    assert one.data_ptr() != two.data_ptr()
    maker(ViewsConfig(), 24)(images, seeded())
    assert torch.equal(images, before)


def test_the_kernel_reaches_three_times_the_largest_sigma(maker):
    images = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    images[:, :, 16, 16] = 255
    view, _ = maker(quiet(blur=1.0, blur_sigma=(2.0, 2.0)), 33).draw(images, seeded())
    reached = (view[0, 0, 16] > 0).nonzero()[:, 0]
    assert (reached.min(), reached.max()) == (16 - 6, 16 + 6)


def test_a_small_view_gets_a_small_kernel(maker):
    one, _ = maker(quiet(blur=1.0, blur_sigma=(5.0, 9.0)), 8).draw(pictures(height=8, width=8), seeded())
    assert torch.isfinite(one).all()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views():
    images = pictures(64)
    make = ViewMaker(ViewsConfig(rotate90=0.5, solarize=0.2, channel_drop=0.1, noise=0.1), 24, "cuda")
    on_device = images.cuda()
    torch.cuda.set_sync_debug_mode("error")  # any wait for the device raises
    try:
        on_gpu = make(on_device, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for here, there in zip(make(images, seeded()), on_gpu, strict=True):
        torch.testing.assert_close(here, there.cpu(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_a_part_of_a_batch_gets_the_views_it_would_get_in_the_whole(engine):
    settings = ViewsConfig(mean=(0.5,) * 3, std=(0.25,) * 3, local_views=1, local_size=8, noise=0.1, blur=0.5)
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    make = ViewMaker(settings, 16, engine=engine)
    whole = make(images, torch.Generator().manual_seed(1))
    parts = [
        make(images[rows], torch.Generator().manual_seed(1), (rows.start, 6)) for rows in (slice(0, 2), slice(2, 6))
    ]
    for number, view in enumerate(whole):
        assert torch.equal(view, torch.cat([part[number] for part in parts]))
