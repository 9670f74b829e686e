"""A small job, its tiles, and the contents of a job's folder."""

import csv

import numpy as np

from cnnvis_fast.storage.job_folder import Store

JOB = {"model": "net", "mean": [0.5], "config": {"steps": 8, "size": 32, "position": [1, 2]}}
OPTIONS = {"steps": 2, "size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "progress": False}


def pixels(seed=0, channels=3, side=16):
    return np.random.default_rng(seed).integers(0, 256, (channels, side, side), dtype=np.uint8)


def record(layer="conv", channel=0, status="ok", **more):
    return {"model": "net", "layer": layer, "filter": channel, "status": status, "score": 1.5, **more}


def put(store, layer="conv", channel=0, picture=None, **more):
    picture = pixels(channel) if picture is None else picture
    store.write(layer, channel, picture, record(layer, channel, **more))
    return store.folder(layer) / f"{channel:04d}.png"


def rows(store):
    with (store.out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def contents(folder, *patterns):
    paths = [path for pattern in patterns or ("*",) for path in folder.rglob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def made(*arguments):
    """Returns the store of a job's folder, closed for writing."""
    with Store(*arguments).writing() as store:
        return store
