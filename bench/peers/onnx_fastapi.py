"""The ONNX graph of the benchmark `native`, and FastAPI with the ONNX Runtime in front of it: python onnx_fastapi.py FOLDER makes it."""

import json
import os
import sys

import numpy

FEATURES = 30
TREES = 100


def train(folder):
    """Writes the graph, one row, and what the ONNX Runtime says of it."""
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingRegressor

    random = numpy.random.default_rng(5)
    rows = random.normal(size=(5_000, FEATURES)).round(4).astype(numpy.float32)
    scores = rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows))
    model = GradientBoostingRegressor(n_estimators=TREES, max_depth=6, random_state=1).fit(rows, scores)
    graph = to_onnx(model, rows[:1]).SerializeToString()
    with open(os.path.join(folder, "model.onnx"), "wb") as file:
        file.write(graph)
    asked = rows[:200]
    answers = onnxruntime.InferenceSession(graph).run(None, {"X": asked})[0].ravel().tolist()
    with open(os.path.join(folder, "onnx-rows.json"), "w") as file:
        json.dump([[",".join(map(str, row)), answer] for row, answer in zip(asked.tolist(), answers)], file)


def application(folder):
    """Answers a row of CSV; one thread a worker, which is the fastest way."""
    import fastapi
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options)
    app = fastapi.FastAPI()

    @app.get("/ping")
    async def ping():
        return {}

    @app.post("/invocations")
    async def invocations(request: fastapi.Request):
        lines = (await request.body()).decode().splitlines()
        rows = numpy.array([line.split(",") for line in lines], dtype=numpy.float32)
        scores = session.run(None, {"X": rows})[0].ravel().tolist()
        return fastapi.Response(",".join(map(str, scores)), media_type="text/csv")

    return app


if __name__ == "__main__":
    train(sys.argv[1])
else:
    app = application(os.environ["MODEL_FOLDER"])
