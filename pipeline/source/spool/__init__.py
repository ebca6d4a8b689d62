"""Rows on local disk ahead of sending, so that a slow destination needs no read session.

`source.py` is the Source that wraps another · `reading.py` one Reading of it · `stock.py` what is
on disk, and who waits for what · `filler.py` reads ahead · `folder.py` the directory · `file.py` ·
`leftovers.py` what no run goes on with.

Messages go to disk as they came, undecoded; a file is whole or not there; it is deleted once every
destination has settled its rows. What the disk does not have is read from the wrapped source.
"""
