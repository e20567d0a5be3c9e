"""WebP. libwebp takes whole pictures only, so this one is held in memory until its last row."""

from typing import BinaryIO

from PIL import Image as Pillow

from runtime.upscale.writers.base import Picture, Rows, Writer

WITH_COLOUR = {"L": "RGB", "LA": "RGBA"}  # WebP has no grey


class WebpWriter(Writer):
    """Without loss where no quality is given; grey becomes RGB."""

    name, largest = "WebP", 16383

    def __init__(self, file: BinaryIO, picture: Picture):
        super().__init__(file, picture)
        self._mode = WITH_COLOUR.get(picture.mode, picture.mode)
        self._whole = Pillow.new(self._mode, (picture.width, picture.height))

    def _write(self, rows: Rows) -> None:
        grey = self.picture.channels == 1
        self._whole.paste(Pillow.fromarray(rows.squeeze(2) if grey else rows).convert(self._mode), (0, self.written))

    def _finish(self) -> None:
        picture = self.picture
        # `exact` keeps colours below full transparency
        kind = {"lossless": True, "exact": True} if picture.quality is None else {"quality": picture.quality}
        self._whole.save(self.file, "WEBP", icc_profile=picture.icc, exif=picture.exif_block, **kind)
