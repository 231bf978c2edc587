"""The peer of `benchmarks.serving`: the same model behind FastAPI and uvicorn, in one process.

As anybody would write it: no queue, no limit, no batches.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, UploadFile

from mrkd_ray.inference import threads
from mrkd_ray.inference.classifier import Classifier


def main() -> None:
    """Serve a model (first argument) at a port of this machine (second)."""
    threads.limit(1)
    classifier = Classifier.load(sys.argv[1], "cpu")
    app = FastAPI()

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, float]:
        found: dict[str, float] = classifier.predict(file.file).top()
        return found

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
