"""Arrays of every datatype of tensors."""

import numpy as np

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def array(datatype, shape):
    """The extremes of the type come first."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        values = [text.encode() for text in ("", "é", "日本\x00", '"\\', "x" * 300, " ")]
    elif datatype == "BOOL":
        values = [True, False, False, True, True, False]
    elif datatype.startswith("FP"):
        limits = np.finfo(NUMPY[datatype])
        values = [limits.max, limits.min, limits.tiny, 0.0, -0.5, 1.0]
    else:
        limits = np.iinfo(NUMPY[datatype])
        values = [limits.max, limits.min, 0, 1, 2, 3]
    return np.array(values[:count], dtype=NUMPY[datatype]).reshape(shape)
