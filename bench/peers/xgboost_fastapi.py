"""The XGBoost model of the benchmark `native`, and FastAPI in front of it: python xgboost_fastapi.py FOLDER trains it."""

import json
import os
import sys

import numpy
import xgboost

FEATURES = 30
TREES = 100


def train(folder):
    """Writes the model, one row, and what XGBoost says of it."""
    random = numpy.random.default_rng(5)
    rows = random.normal(size=(20_000, FEATURES)).round(4)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows)) > 0).astype(float)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 6, "seed": 1}, xgboost.DMatrix(rows, labels), TREES)
    booster.save_model(os.path.join(folder, "xgboost-model.ubj"))
    asked = rows[:200]
    answers = booster.predict(xgboost.DMatrix(asked)).tolist()
    with open(os.path.join(folder, "rows.json"), "w") as file:
        json.dump([[",".join(map(str, row)), answer] for row, answer in zip(asked.tolist(), answers)], file)


def application(folder):
    """Answers a row of CSV; one thread a worker, and no matrix in between, which is the fastest way."""
    import fastapi

    booster = xgboost.Booster({"nthread": 1}, model_file=os.path.join(folder, "xgboost-model.ubj"))
    app = fastapi.FastAPI()

    @app.get("/ping")
    async def ping():
        return {}

    @app.post("/invocations")
    async def invocations(request: fastapi.Request):
        lines = (await request.body()).decode().splitlines()
        rows = numpy.array([line.split(",") for line in lines], dtype=numpy.float32)
        scores = booster.inplace_predict(rows).tolist()
        return fastapi.Response(",".join(map(str, scores)), media_type="text/csv")

    return app


if __name__ == "__main__":
    train(sys.argv[1])
else:
    app = application(os.environ["MODEL_FOLDER"])
