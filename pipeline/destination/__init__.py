"""APIs: their shape, limits, and what their answers mean. Pure: bytes in, values out."""
