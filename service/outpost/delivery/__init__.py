"""Delivery: result files enter the outbox, and leave it once every destination has confirmed them.

Promise: a result survives restarts and weeks without a link; it is sent again as the same object (same UIDs).
"""
