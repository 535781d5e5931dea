"""Images and masks from files: `read_image`, `read_mask`; `open_image` of large_images.py for prediction."""

from hrseg.data.images.decoding import DecodedImage, ImageInfo
from hrseg.data.images.kinds import ImageKind, common_kind
from hrseg.data.images.listing import IMAGE_ENDINGS, MASK_ENDINGS, OTHER_ENDINGS, ending_of, list_files, walk
from hrseg.data.images.masks import channels_are_equal, read_mask, stored_orientation
from hrseg.data.images.png_and_jpeg import read_palette
from hrseg.data.images.reading import decode_image, inspect_image, read_image

__all__ = [
    "IMAGE_ENDINGS",
    "MASK_ENDINGS",
    "OTHER_ENDINGS",
    "DecodedImage",
    "ImageInfo",
    "ImageKind",
    "channels_are_equal",
    "common_kind",
    "decode_image",
    "ending_of",
    "inspect_image",
    "list_files",
    "read_image",
    "read_mask",
    "read_palette",
    "stored_orientation",
    "walk",
]
