"""The structures that the compiled products take, as ctypes lays them out; compared with the library at its loading."""

import ctypes
from typing import Any

from qtool.errors import CapacityError

MOST_PARTS = 3  # products with one input: query, key and value


class Product(ctypes.Structure):
    """`Product` of native.h: a weight, and room for what it is multiplied with."""

    _fields_ = (
        ("inputs", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("zeros", ctypes.c_void_p),
        ("book", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("padded", ctypes.c_int64),
        ("per_row", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("input_scale", ctypes.c_float),
        ("input_zero", ctypes.c_int32),
        ("output", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
    )


class Attention(ctypes.Structure):
    """`Attention` of native.h: single tokens, and the memory of keys and values that they look at."""

    _fields_ = (
        ("query", ctypes.c_void_p),
        ("query_token", ctypes.c_int64),
        ("query_head", ctypes.c_int64),
        ("keys", ctypes.c_void_p),
        ("key_slot", ctypes.c_int64),
        ("key_head", ctypes.c_int64),
        ("key_position", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("value_slot", ctypes.c_int64),
        ("value_head", ctypes.c_int64),
        ("value_position", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("value_width", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("narrow", ctypes.c_int32),
        ("output", ctypes.c_void_p),
    )


class Linear(ctypes.Structure):
    """`Linear` of native_decoder.cpp: a product and what is added to it."""

    _fields_ = (
        ("product", Product),
        ("kind", ctypes.c_int32),
        ("step", ctypes.c_int32),
        ("bias", ctypes.c_void_p),
    )


class Norm(ctypes.Structure):
    """`Norm` of native_decoder.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("epsilon", ctypes.c_float),
        ("centred", ctypes.c_int32),
    )


class Layer(ctypes.Structure):
    """`Layer` of native_decoder.cpp: one decoder layer."""

    _fields_ = (
        ("input", Norm),
        ("middle", Norm),
        ("after_attention", Norm),
        ("after_feed_forward", Norm),
        ("query", Norm),
        ("key", Norm),
        ("attention", Linear * MOST_PARTS),
        ("gate_up", Linear * 2),
        ("output", Linear),
        ("down", Linear),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("window", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
        ("attention_parts", ctypes.c_int32),
        ("gate_up_parts", ctypes.c_int32),
        ("gated", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("rotary", ctypes.c_int32),
    )


class Decoder(ctypes.Structure):
    """`Decoder` of native_decoder.cpp: layers, last norm and head."""

    _fields_ = (
        ("layers", ctypes.c_void_p),
        ("layer_count", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("context", ctypes.c_int64),
        ("norm", Norm),
        ("head", Linear),
        ("threads", ctypes.c_int32),
        ("narrow", ctypes.c_int32),
    )


class Step(ctypes.Structure):
    """`Step` of native_decoder.cpp: tokens, and room for what a step computes of them."""

    _fields_ = (
        ("state", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("rotated", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
        ("room", ctypes.c_void_p),
        ("product_seconds", ctypes.c_double),
    )


STRUCTURES: tuple[type[ctypes.Structure], ...] = (Product, Attention, Linear, Norm, Layer, Decoder, Step)


def refuse_other_sizes(library: Any) -> None:
    """Raises CapacityError where a structure is not as large in `library` as here: it would read other fields."""
    sizes = (ctypes.c_int64 * len(STRUCTURES))()
    library.qtool_sizes(sizes)
    for structure, size in zip(STRUCTURES, sizes, strict=True):
        if size != ctypes.sizeof(structure):
            raise CapacityError(
                f"the compiled products and qtool lay out {structure.__name__} differently ({size} and "
                f"{ctypes.sizeof(structure)} bytes); install qtool again, or run with QTOOL_NATIVE=0"
            )
