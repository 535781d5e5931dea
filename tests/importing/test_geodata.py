"""Maps: polygons are burned as rasterio does; labels of another grid; blocks of ground are split as a whole."""

from __future__ import annotations

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.transform import from_origin

from hrseg.commands.importing import main
from hrseg.data.folder import Folder
from hrseg.data.images import read_image
from hrseg.importing.ground import Footprint, split_blocks
from tests.importing.made import classes_of, imported, mask_of, text, told

HEIGHT, WIDTH, NODATA = 300, 420, 0
TRANSFORM = from_origin(500_000, 5_200_000, 0.5, 0.5)


def raster(path, values, crs="EPSG:32632", transform=TRANSFORM, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    profile = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **profile, **options) as file:
        file.write(bands)
    return path


@pytest.fixture(scope="module")
def ortho(tmp_path_factory):
    """Four bands of 16 bits with a tilted edge of nodata."""
    values = np.random.default_rng(0).integers(1, 4000, (4, HEIGHT, WIDTH), dtype=np.uint16)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values[:, rows + columns < 150] = NODATA
    return raster(tmp_path_factory.mktemp("map") / "ortho.tif", values, nodata=NODATA)


def polygons() -> list[tuple[str, shapely.Polygon]]:
    """Some overlap; in the coordinates of the map."""
    rng, found = np.random.default_rng(7), []
    for number in range(12):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
        x, y = 500_000 + rng.uniform(20, WIDTH / 2 - 20), 5_200_000 - rng.uniform(20, HEIGHT / 2 - 20)
        radius = rng.uniform(8, 30, 11)
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        found.append((("wheat", "maize", "road")[number % 3], shapely.Polygon(points).buffer(0)))
    return found


def written(path, shapes, crs="EPSG:32632"):
    if crs != "EPSG:32632":
        move = lambda xy: np.stack(rasterio.warp.transform("EPSG:32632", crs, xy[:, 0], xy[:, 1]), 1)  # noqa: E731
        shapes = [(name, shapely.transform(shape, move)) for name, shape in shapes]
    names, geometries = zip(*shapes, strict=True)
    if path.suffix == ".geojson":
        features = [
            {"type": "Feature", "properties": {"crop": n, "year": 3}, "geometry": json.loads(shapely.to_geojson(g))}
            for n, g in shapes
        ]
        return text(path, {"type": "FeatureCollection", "features": features})
    fields = {"fields": ["crop", "year"], "field_data": [np.array(names, object), np.arange(len(names))]}
    geometry = np.array([shapely.to_wkb(g) for g in geometries], object)
    pyogrio.raw.write(path, geometry=geometry, geometry_type="Polygon", crs=crs, **fields)
    return path


def together(out, read) -> np.ndarray:
    """The tiles of a map, put together; -1 where one was left out."""
    whole = np.full((HEIGHT, WIDTH), -1, int)
    for path in (out / "masks").rglob("*.png"):
        row, column = map(int, path.stem.split("_")[-2:])
        values = read(path)
        whole[row : row + values.shape[0], column : column + values.shape[1]] = values
    return whole


def masks(out) -> np.ndarray:
    return together(out, lambda path: mask_of(out, str(path.relative_to(out / "masks"))[: -len(".png")]))


@pytest.mark.parametrize(
    ("ending", "crs"), [(".gpkg", "EPSG:32632"), (".geojson", "EPSG:4326"), (".shp", "EPSG:25832")]
)
def test_polygons_are_burned_as_rasterio_does_and_nodata_is_ignored(ortho, tmp_path, ending, crs):
    shapes = polygons()
    labels = written(tmp_path / f"fields{ending}", shapes, crs)
    words = ("--class-field", "crop", "--tile", "64", "--unlabelled", "background")
    out = imported([ortho, labels], tmp_path / "out", *words)
    classes = classes_of(out)
    expected = rasterio.features.rasterize(
        [(shape, classes[name]) for name, shape in shapes], out_shape=(HEIGHT, WIDTH), transform=TRANSFORM, fill=0
    )
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    nodata = rows + columns < 150
    expected = np.where(nodata, 255, expected)
    found = masks(out)
    assert np.array_equal(found == -1, (found == -1) & nodata)  # left out: nothing but nodata
    assert (found[:64, :64] == -1).all()
    differing = (found != expected) & (found != -1)
    # Coordinates that were moved to another system and back differ in the last digits.
    assert differing.sum() == 0 if crs == "EPSG:32632" else differing.mean() < 1e-4


def test_tiles_keep_all_bits_and_train(ortho, tmp_path):
    labels = written(tmp_path / "fields.gpkg", polygons())
    out = imported(
        [ortho, labels], tmp_path / "out", "--class-field", "crop", "--tile", "64", "--unlabelled", "background"
    )
    with rasterio.open(ortho) as whole:
        values = whole.read()
    for path in (out / "images").rglob("*.tif"):
        row, column = map(int, path.stem.split("_")[-2:])
        image = read_image(path)
        assert np.array_equal(image, np.moveaxis(values, 0, 2)[row : row + 64, column : column + 64])
        with rasterio.open(path) as tile:
            assert tile.crs.to_epsg() == 32632 and (tile.transform.c, tile.transform.f) == (
                500_000 + column / 2,
                5_200_000 - row / 2,
            )
    train, val = Folder(out, "train"), Folder(out, "val")
    assert train[0].image.dtype == np.uint16 and train[0].image.shape[2] == 4 and len(val) > 0
    # A block of ground is on one side.
    assert not {train.cluster(i) for i in range(len(train))} & {val.cluster(i) for i in range(len(val))}


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
def test_a_label_raster_may_have_another_grid(ortho, tmp_path, crs):
    labels = np.random.default_rng(1).integers(1, 4, (90, 80), dtype=np.uint8)
    labels[:10] = 9  # its nodata
    transform = from_origin(500_030, 5_199_990, 1.7, 1.7)
    if crs != "EPSG:32632":
        transform, width, height = rasterio.warp.calculate_default_transform(
            "EPSG:32632", crs, 80, 90, 500_030, 5_199_990 - 90 * 1.7, 500_030 + 80 * 1.7, 5_199_990
        )
        labels = np.resize(labels, (height, width))
    path = raster(tmp_path / "labels.tif", labels, crs, transform, nodata=9)
    table = text(tmp_path / "classes.csv", "water,1\ntree,2\nground,3\n")
    words = ("--labels", str(path), "--classes", str(table), "--tile", "64")
    out = imported(ortho, tmp_path / "out", *words)
    # Where the centre of each pixel lies in the labels. (rasterio.warp.reproject approximates: two pixels differ.)
    rows, columns = (v.ravel() for v in np.mgrid[:HEIGHT, :WIDTH])
    centers = 500_000 + (columns + 0.5) / 2, 5_200_000 - (rows + 0.5) / 2
    x, y = map(np.array, rasterio.warp.transform("EPSG:32632", crs, *centers))
    place = np.floor([(y - transform.f) / transform.e, (x - transform.c) / transform.a]).astype(int)
    inside = ((place >= 0) & (place < np.reshape(labels.shape, (2, 1)))).all(axis=0)
    expected = np.full(HEIGHT * WIDTH, 9)
    expected[inside] = labels[tuple(place[:, inside])]
    expected[rows + columns < 150] = 9
    expected = expected.reshape(HEIGHT, WIDTH)
    classes = classes_of(out)
    ids = np.array([0, classes["water"], classes["tree"], classes["ground"], *[255] * 6])
    expected = ids[expected]
    found = masks(out)
    assert np.array_equal(found[found != -1], expected[found != -1])
    assert (expected[found == -1] == 255).all() and (found == -1).any()


def test_neighbours_are_never_split_singly():
    footprints = [Footprint("a", (c, -r - 1, c + 1, -r)) for r in range(20) for c in range(30)]
    splits = split_blocks(footprints, 0.2)
    val = np.array([s.split == "val" for s in splits]).reshape(20, 30)
    blocks = np.array([s.block for s in splits]).reshape(20, 30)
    assert 0.2 <= val.mean() < 0.3 and all(s.split for s in splits)
    for name in np.unique(blocks):
        rows, columns = np.nonzero(blocks == name)
        assert len(set(val[blocks == name])) == 1
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    # A second picture of the same ground, half a tile off: where it would lie on both sides it is left out.
    again = [Footprint("a", (c + 0.5, -r - 1, c + 1.5, -r)) for r in range(20) for c in range(29)]
    of_both = split_blocks([*footprints, *again], 0.2)
    ground = {(f.bounds[0], f.bounds[1]): s.split for f, s in zip(footprints, of_both, strict=False)}
    for footprint, split in zip(again, of_both[600:], strict=True):
        left, bottom = footprint.bounds[:2]
        sides = {ground[left - 0.5, bottom], ground[left + 0.5, bottom]}
        assert split.split == (sides.pop() if len(sides) == 1 else None)


def test_what_is_broken_in_a_map_is_told(ortho, tmp_path, capsys):
    bow = shapely.Polygon([(500_010, 5_199_990), (500_050, 5_199_950), (500_050, 5_199_990), (500_010, 5_199_950)])
    labels = written(tmp_path / "fields.geojson", [*polygons(), ("wheat", bow)], "EPSG:4326")
    plain = json.loads(labels.read_text())
    line = {"type": "LineString", "coordinates": [[9, 46], [9.1, 46]]}
    plain["features"] += [
        {"type": "Feature", "properties": {"crop": "x"}, "geometry": line},
        {"type": "Feature", "properties": {"crop": "x"}, "geometry": None},
        {**plain["features"][0], "properties": {"crop": None}},
    ]
    text(labels, plain)
    words = [str(ortho), str(labels), "--out", str(tmp_path / "out"), "--tile", "64", "--unlabelled", "ignore"]
    assert main(words) == 2
    assert "crop, year" in capsys.readouterr().err
    words += ["--class-field", "crop"]
    assert main(words) == 2
    message = capsys.readouterr().err
    for reason in ("crosses itself", "LineString", "no geometry", "field crop is empty"):
        assert reason in message
    assert main([*words, "--skip-broken"]) == 0
    assert len(told(tmp_path / "out")["left_out"]["annotations"]) == 4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.gpkg", b"words", "is not what its ending"),
        ("x.gpkg", b"SQLite format 3\0" + bytes(200), "cannot be read"),
        ("x.shp", b"\0\0\x27\x0a" + bytes(50), "cannot be read"),
        ("x.geojson", b"[1]", "is not GeoJSON"),
        ("x.geojson", b'{"type": "FeatureCollection", "features": [7]}', ""),
        ("x.tif", b"II*\0words", "cannot be read as GeoTIFF"),
        ("x.tif", b"<VRTDataset></VRTDataset>", "cannot be read as GeoTIFF"),
    ],
)
def test_broken_files_of_a_map_end_with_a_sentence(ortho, tmp_path, capsys, name, content, reason):
    (tmp_path / name).write_bytes(content)
    words = [str(ortho), "--labels", str(tmp_path / name), "--out", str(tmp_path / "out"), "--unlabelled", "ignore"]
    assert main([*words, "--class-field", "a"] if not name.endswith("tif") else words[:-2]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1 and reason in message and "Traceback" not in message
    assert {path.name for path in tmp_path.iterdir()} == {name}
