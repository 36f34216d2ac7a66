"""Stand-in for numerapi: files are there already, and what is uploaded is noted.

Numerai's server cannot be reached from a test. All else of an example runs as it is.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path


class NumerAPI:
    """Has the methods that the pages call; `uploads` holds the files of all uploads."""

    def __init__(self, *keys, **options):
        self.uploads = []

    def download_dataset(self, filename, dest_path=None):
        found = Path(dest_path or filename)
        assert found.exists(), f"{found}: is no file of the version that the tests write"
        return str(found)

    def get_models(self):
        return {"my_model": "model-id"}

    def model_upload_docker_images(self):
        return {"Python 3.11": "image-id"}

    def upload_predictions(self, file_path="predictions.csv", model_id=None, **options):
        return self._upload(file_path, model_id)

    def model_upload(self, file_path, model_id=None, **options):
        return self._upload(file_path, model_id)

    def _upload(self, path, model_id):
        assert Path(path).stat().st_size
        assert model_id == "model-id"
        self.uploads.append(Path(path))
        return "upload-id"


def install(monkeypatch):
    """Have ``import numerapi`` find the stand-in."""
    module = types.ModuleType("numerapi")
    module.NumerAPI = NumerAPI
    monkeypatch.setitem(sys.modules, "numerapi", module)
