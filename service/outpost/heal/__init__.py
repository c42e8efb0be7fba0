"""Files of ours that a disk has damaged: found, put aside whole, and made again from what is left."""
