"""One Run of a Sync: reads, encodes and sends in bounded memory, settles, commits, reports."""
