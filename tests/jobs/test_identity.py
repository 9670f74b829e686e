"""A job's identity: what job.json says that the pictures are a function of."""

import pytest

import cnnvis_fast as cv
from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.config import configure
from cnnvis_fast.jobs.identity import job_identity
from cnnvis_fast.jobs.job import Job
from cnnvis_fast.networks.preprocessing import describe


@pytest.mark.parametrize("option, stored", [("auto", "auto"), ("none", "none"), ("gray", "grey")])
def test_job_json_spells_color_as_existing_atlases_do(option, stored):
    network = cv.load_model("texturenet", None)
    source, config = describe(network), configure(color=option, device="cpu", size=32)
    kept = job_identity(Job(network, source, config), resolve_config(config, source))["config"]
    assert kept["colour"] == stored
    assert "color" not in kept
