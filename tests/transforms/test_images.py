import numpy as np
import pytest
import torch
from monai.data import decollate_batch, list_data_collate
from monai.transforms import LoadImage
from PIL import Image

from medcalib.errors import UserError
from medcalib.transforms import CheckLabeld, LoadPictured
from medcalib.transforms.images import polygon_mask, read_picture

WIDTH, HEIGHT = 7, 4


@pytest.fixture
def colours():
    """Rows, columns, colours: every pixel differs from all others."""
    return np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)


def save(path, pixels, mode=None):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)
    return str(path)


def case(image, **more):
    return {"case": "a", "image": image, **more}


class TestReadPicture:
    @pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
    def test_pixels_are_those_of_the_file(self, tmp_path, colours, suffix):
        picture = read_picture(save(tmp_path / f"a.{suffix}", colours))
        assert picture.shape == (3, WIDTH, HEIGHT)
        assert picture.dtype == torch.float32
        for x, y in ((0, 0), (WIDTH - 1, 0), (2, HEIGHT - 1)):
            assert picture[:, x, y].tolist() == colours[y, x].tolist()

    @pytest.mark.parametrize(("suffix", "mode"), [("png", "RGB"), ("jpg", "RGB"), ("png", "L"), ("jpg", "L")])
    def test_agrees_with_monai_where_that_can_read(self, tmp_path, colours, suffix, mode):
        path = save(tmp_path / f"a.{suffix}", colours, mode)
        expected = LoadImage(image_only=True, ensure_channel_first=True)(path)
        picture = read_picture(path)
        torch.testing.assert_close(picture.as_tensor(), expected.as_tensor())
        np.testing.assert_array_equal(picture.affine, expected.affine)

    @pytest.mark.parametrize(
        ("mode", "channels"), [("RGBA", 3), ("LA", 1), ("P", 3), ("CMYK", 3), ("L", 1), ("1", 1), ("PA", 3)]
    )
    def test_colours_or_grey_and_no_transparency(self, tmp_path, mode, channels):
        """Colours that every mode can hold."""
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[1, 2] = pixels[3, 6] = 255
        if channels == 3:
            pixels[0, 5] = (255, 0, 0)
        picture = Image.fromarray(pixels)
        if mode == "PA":
            picture = picture.convert("RGBA")
        path = tmp_path / ("a.tif" if mode in ("CMYK", "PA") else "a.png")
        read = read_picture(save(path, picture, mode))
        expected = pixels.transpose(2, 1, 0)[:channels]
        np.testing.assert_array_equal(read.numpy(), expected)

    def test_transparent_pixels_keep_their_colour(self, tmp_path, colours):
        transparent = np.dstack([colours, np.zeros((HEIGHT, WIDTH), np.uint8)])
        read = read_picture(save(tmp_path / "a.png", transparent))
        np.testing.assert_array_equal(read.numpy(), colours.transpose(2, 1, 0))

    def test_a_palette_of_greys_is_grey(self, tmp_path):
        """Whatever the order of the palette."""
        picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
        picture.putpalette([30, 30, 30, 10, 10, 10, 20, 20, 20])
        read = read_picture(save(tmp_path / "a.png", picture))
        assert read[0, :, 0].tolist() == [30, 10, 20]
        assert len(read) == 1

    @pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.float32, "tif")])
    def test_deep_pixels_keep_their_scale(self, tmp_path, dtype, suffix):
        deep = np.array([[0, 300, 16383]], dtype)
        assert read_picture(save(tmp_path / f"a.{suffix}", deep))[0, :, 0].tolist() == [0, 300, 16383]

    def test_the_orientation_of_a_camera_is_not_applied(self, tmp_path, colours):
        """Masks have the pixels of the file."""
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(colours).save(tmp_path / "a.jpg", exif=exif)
        assert read_picture(tmp_path / "a.jpg").shape == (3, WIDTH, HEIGHT)

    def test_a_picture_comes_back_from_what_was_read(self, tmp_path, colours):
        """This is how predictions are written in the size and orientation of the input."""
        read = read_picture(save(tmp_path / "a.png", colours))
        save(tmp_path / "b.png", read.numpy().transpose(2, 1, 0).astype(np.uint8))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), colours)


class TestLoad:
    def test_a_mask_lies_on_its_picture(self, tmp_path, colours):
        mask = (colours[..., 0] > 40).astype(np.uint8) * 255
        loaded = LoadPictured(num_channels=3, label_map={255: 1})(
            case(save(tmp_path / "i.png", colours), label=save(tmp_path / "m.png", mask))
        )
        assert loaded["label"].shape == (1, WIDTH, HEIGHT)
        np.testing.assert_array_equal(loaded["label"][0].numpy(), loaded["image"][0].numpy() > 40)
        assert loaded["label"].meta["filename_or_obj"] == str(tmp_path / "m.png")

    def test_an_image_without_label_loads(self, tmp_path, colours):
        assert set(LoadPictured()(case(save(tmp_path / "i.png", colours)))) == {"case", "image"}

    def test_a_palette_of_a_label_is_not_looked_up(self, tmp_path, colours):
        mask = Image.fromarray((np.arange(HEIGHT * WIDTH) % 3).astype(np.uint8).reshape(HEIGHT, WIDTH), mode="P")
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        label = LoadPictured()({"case": "a", "label": save(tmp_path / "m.png", mask)})["label"]
        np.testing.assert_array_equal(label[0].numpy(), np.asarray(mask).T)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
    def test_a_grey_mask_in_another_mode(self, tmp_path, mode):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[2:, 3] = 255
        path = save(tmp_path / "m.png", mask, mode)
        label = LoadPictured(label_map={255: 1})({"case": "a", "label": path})["label"]
        assert label.shape == (1, WIDTH, HEIGHT)
        np.testing.assert_array_equal(label[0].numpy(), (mask > 0).T)

    def test_a_palette_with_transparency_is_not_looked_up_either(self, tmp_path):
        indices = (np.arange(HEIGHT * WIDTH) % 3).astype(np.uint8).reshape(HEIGHT, WIDTH)
        mask = Image.fromarray(indices, mode="P")
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        save(tmp_path / "m.png", mask)
        with_alpha = Image.open(tmp_path / "m.png").convert("PA")
        with_alpha.save(tmp_path / "m.tif")
        if Image.open(tmp_path / "m.tif").mode != "PA":
            pytest.skip("this Pillow keeps no palette beside transparency")
        label = LoadPictured()({"case": "a", "label": str(tmp_path / "m.tif")})["label"]
        np.testing.assert_array_equal(label[0].numpy(), indices.T)

    def test_a_class_is_a_number(self, tmp_path, colours):
        loaded = LoadPictured()(case(save(tmp_path / "i.png", colours), label=2))
        assert loaded["label"].shape == (1,)
        checked = CheckLabeld("label", ["a", "b", "c"])(loaded)
        assert checked["label"].tolist() == [2]
        with pytest.raises(UserError, match="Case a: its label holds the value 2"):
            CheckLabeld("label", ["a", "b"])(loaded)

    def test_channels_in_several_files(self, tmp_path, colours):
        paths = [save(tmp_path / f"{index}.tif", colours[..., index].copy()) for index in range(3)]
        loaded = LoadPictured(num_channels=3)(case(paths))
        np.testing.assert_array_equal(loaded["image"].numpy(), colours.transpose(2, 1, 0))


class TestErrors:
    def message(self, data, **options):
        with pytest.raises(UserError) as caught:
            LoadPictured(**options)(data)
        text = str(caught.value)
        assert text.startswith("Case a: ")
        assert "\n" not in text
        assert text.endswith(".")
        return text

    def test_missing_file(self):
        assert self.message(case("gone.png")) == "Case a: gone.png does not exist."

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
    @pytest.mark.parametrize("key", ["image", "label"])
    def test_damaged_file(self, tmp_path, suffix, key):
        noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
        whole, cut = (tmp_path / f"{name}.{suffix}" for name in ("whole", "cut"))
        save(whole, noise)
        content = whole.read_bytes()
        # the directory of a TIF stands at its end
        cut.write_bytes(content[: len(content) // 2] if suffix != "tif" else content[:200] + content[-300:])
        text = self.message({**case(str(whole)), key: str(cut)})
        assert f"{cut} cannot be read" in text
        assert "damaged" in text

    def test_memory_that_is_not_there_is_said(self, tmp_path, colours, monkeypatch):
        def open_picture(*_):
            raise MemoryError

        path = save(tmp_path / "a.png", colours)
        monkeypatch.setattr(Image, "open", open_picture)
        with pytest.raises(UserError, match=r"a\.png does not fit into memory; ") as caught:
            LoadPictured(keys="image")({"case": "a", "image": path})
        assert "damaged" not in str(caught.value)

    def test_something_else_under_the_name_of_a_picture(self, tmp_path):
        (tmp_path / "a.png").write_text("<html>Please log in</html>")
        assert "cannot be read" in self.message(case(str(tmp_path / "a.png")))

    @pytest.mark.parametrize("suffix", ["tif", "gif", "png"])
    @pytest.mark.parametrize("key", ["image", "label"])
    def test_several_pages_or_frames(self, tmp_path, suffix, key):
        """The first of them alone would be read by Pillow: an empty mask where the second has the lesion."""
        pages = [Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (0, 255)]
        single, several = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
        pages[0].save(single)
        pages[0].save(several, save_all=True, append_images=pages[1:])
        LoadPictured()(case(str(single), label=str(single)))
        text = self.message({**case(str(single)), key: str(several)})
        assert f"{several} holds 2 pages or frames, but a picture is one; save the one that is meant" in text

    def test_a_volume_or_a_folder_in_the_place_of_a_picture(self, tmp_path):
        (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
        assert "cannot be read (it is no picture that can be opened" in self.message(case(str(tmp_path / "a.dcm")))
        assert "is a folder; give the pictures in it one by one" in self.message(case(str(tmp_path)))

    def test_number_of_channels(self, tmp_path, colours):
        path = save(tmp_path / "i.png", colours, "L")
        assert f"{path} has 1 channel(s), but data::channel_names lists 3" in self.message(case(path), num_channels=3)

    def test_image_and_mask_of_different_size(self, tmp_path, colours):
        image, mask = save(tmp_path / "i.png", colours), save(tmp_path / "m.png", colours[:, :-1, 0].copy())
        text = self.message(case(image, label=mask))
        assert "image and label differ in shape, (7, 4) against (6, 4)" in text
        assert image in text
        assert mask in text

    def test_turned_mask(self, tmp_path, colours):
        image, mask = save(tmp_path / "i.png", colours), save(tmp_path / "m.png", colours[..., 0].T.copy())
        assert "(7, 4) against (4, 7)" in self.message(case(image, label=mask))

    def test_a_label_with_colours(self, tmp_path, colours):
        image, mask = save(tmp_path / "i.png", colours), save(tmp_path / "m.png", colours)
        assert f"{mask} has colours" in self.message(case(image, label=mask))

    def test_nan(self, tmp_path):
        path = save(tmp_path / "i.tif", np.array([[0, np.nan]], np.float32))
        assert "holds 1 NaN" in self.message(case(path))

    @pytest.mark.parametrize("crop", [[7, 0, 2, 2], [0, 4, 2, 2], [0, -4, 2, 2], [-6, 0, 4, 2], [700, 10, 4, 4]])
    def test_a_crop_beside_the_picture(self, tmp_path, colours, crop):
        path = save(tmp_path / "i.png", colours)
        text = self.message(case(path, crop=crop))
        assert f"lies outside {path}, which has 7 x 4 pixels" in text

    def test_an_outline_beside_the_crop(self, tmp_path, colours):
        path = save(tmp_path / "i.png", colours)
        text = self.message(case(path, label="t.csv", outline="50,50 60,50 60,60", crop=[0, 0, 4, 4]))
        assert "the outline of its label in t.csv lies outside the picture" in text


class TestCrop:
    @pytest.mark.parametrize(
        "crop", [[1, 1, 4, 2], [0, 0, WIDTH, HEIGHT], [-2, -3, 5, 7], [4, 2, 6, 5], [-3, -3, 14, 12], [0, 1, 1, 1]]
    )
    def test_cuts_and_pads(self, tmp_path, colours, crop):
        left, top, width, height = crop
        mask = (colours[..., 0] % 2).astype(np.uint8)
        data = case(save(tmp_path / "i.png", colours), label=save(tmp_path / "m.png", mask), crop=crop)
        loaded = LoadPictured()(data)
        padded = np.pad(np.dstack([colours, mask]), ((20, 20), (20, 20), (0, 0)))
        expected = padded[20 + top : 20 + top + height, 20 + left : 20 + left + width].transpose(2, 1, 0)
        np.testing.assert_array_equal(loaded["image"].numpy(), expected[:3])
        np.testing.assert_array_equal(loaded["label"].numpy(), expected[3:])

    def test_agrees_with_pillow(self, tmp_path, colours):
        path = save(tmp_path / "i.png", colours)
        expected = np.asarray(Image.open(path).crop((-2, 1, 3, 6)))
        loaded = LoadPictured()(case(path, crop=[-2, 1, 5, 5]))
        np.testing.assert_array_equal(loaded["image"].numpy(), expected.transpose(2, 1, 0))

    def test_does_not_keep_the_picture_in_memory(self, tmp_path):
        path = save(tmp_path / "i.png", np.zeros((500, 400), np.uint8))
        loaded = LoadPictured()(case(path, crop=[10, 20, 30, 40]))
        assert loaded["image"].as_tensor().untyped_storage().nbytes() == 30 * 40 * 4


def closed_distance(corners, x, y):
    """Whether points lie in a polygon, by rays, and how far they are from its border."""
    inside, nearest = np.zeros(x.shape, bool), np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.array([x1 - x0, y1 - y0], float)
        place = ((x - x0) * along[0] + (y - y0) * along[1]) / max(along @ along, 1e-12)
        place = np.clip(place, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - place * along[0], y - y0 - place * along[1]))
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < along[0] * (y - y0) / along[1] + x0)
    return inside, nearest


def star(rng, count, middle=(30, 22), radii=(4, 20)):
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    radius = rng.uniform(*radii, count)
    return np.rint(np.stack([middle[0] + radius * np.cos(angle), middle[1] + radius * np.sin(angle)], 1)).astype(int)


class TestPolygonMask:
    @pytest.mark.parametrize("seed", range(30))
    def test_against_a_slow_test_of_every_pixel(self, seed):
        """Pixels that are in or out by more than rounding to the grid; in between either may be."""
        rng = np.random.default_rng(seed)
        corners = star(rng, int(rng.integers(3, 40)), middle=rng.uniform(10, 40, 2))
        x, y = np.meshgrid(np.arange(60), np.arange(44), indexing="ij")
        inside, distance = closed_distance(corners, x, y)
        mask = polygon_mask(corners, (60, 44))
        assert mask.shape == (60, 44)
        assert mask[inside & (distance > 0.5)].all()
        assert not mask[~inside & (distance > 0.75)].any()
        on_grid = [(cx, cy) for cx, cy in corners if 0 <= cx < 60 and 0 <= cy < 44]
        assert all(mask[cx, cy] for cx, cy in on_grid)

    def test_a_rectangle_holds_its_border(self):
        mask = polygon_mask([[2, 1], [5, 1], [5, 3], [2, 3]], (8, 6))
        expected = np.zeros((8, 6), bool)
        expected[2:6, 1:4] = True
        np.testing.assert_array_equal(mask, expected)

    @pytest.mark.parametrize("turn", [np.roll, np.flip])
    def test_neither_start_nor_sense_matter(self, turn):
        corners = star(np.random.default_rng(3), 12)
        turned = turn(corners, 0) if turn is np.flip else turn(corners, 5, axis=0)
        np.testing.assert_array_equal(polygon_mask(turned, (60, 44)), polygon_mask(corners, (60, 44)))

    def test_moves_with_its_corners(self):
        corners = star(np.random.default_rng(4), 15)
        moved = polygon_mask(corners + np.array([7, 3]), (80, 60))
        np.testing.assert_array_equal(moved[7:67, 3:47], polygon_mask(corners, (60, 44)))

    def test_corners_are_rounded_not_cut(self):
        np.testing.assert_array_equal(
            polygon_mask([[0.6, 0.6], [2.6, 0.6], [2.6, 1.6]], (5, 4)), polygon_mask([[1, 1], [3, 1], [3, 2]], (5, 4))
        )

    @pytest.mark.parametrize("corners", [[[0, 0], [1, 1]], [[0, 0, 1], [1, 1, 1], [2, 0, 1]], [1, 2, 3]])
    def test_what_is_no_polygon(self, corners):
        with pytest.raises(ValueError, match="corners must have shape"):
            polygon_mask(corners, (4, 4))


class TestOutline:
    @pytest.fixture
    def outlined(self, tmp_path):
        corners = star(np.random.default_rng(6), 20, middle=(50, 30))
        image = np.zeros((70, 90), np.uint8)
        image[polygon_mask(corners, (90, 70)).T] = 200
        path = save(tmp_path / "i.tif", image)
        return case(path, label="outlines.csv", outline=" ".join(f"{x},{y}" for x, y in corners))

    @pytest.mark.parametrize("crop", [None, [20, 5, 55, 50], [10, -20, 80, 80]])
    def test_is_drawn_where_the_lesion_is(self, outlined, crop):
        data = outlined if crop is None else outlined | {"crop": crop}
        loaded = LoadPictured(num_channels=1)(data)
        assert loaded["image"].shape == loaded["label"].shape == (1, *(crop[2:] if crop else (90, 70)))
        np.testing.assert_array_equal(loaded["label"].numpy(), loaded["image"].numpy() > 0)
        assert loaded["label"].meta["filename_or_obj"] == "outlines.csv"

    def test_is_not_drawn_without_label(self, outlined):
        del outlined["label"]
        assert "label" not in LoadPictured()(outlined)

    def test_is_drawn_again_from_what_a_batch_keeps(self, outlined):
        load = LoadPictured()
        longer = outlined | {"outline": outlined["outline"] + " 51,31"}
        batch = list_data_collate([load(data | {"crop": [20, 5, 55, 50]}) for data in (outlined, longer)])
        kept = decollate_batch(batch)[0]
        again = load({key: kept[key] for key in ("case", "crop", "outline")} | {"label": "outlines.csv"})
        assert "image" not in again
        torch.testing.assert_close(again["label"].as_tensor(), kept["label"].as_tensor())

    def test_needs_a_grid(self, outlined):
        del outlined["image"]
        with pytest.raises(ValueError, match="needs a picture or a crop"):
            LoadPictured()(outlined)
