"""Fixtures of the tests of a job's folder."""

import pytest
from support.job_folders import JOB

from cnnvis_fast.storage.job_folder import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "job", JOB).writing() as store:
        yield store
