"""Quarantine: what ended without a result is kept here, counted, looked at, tried again, and in the end let go.

In: studies and single images with a reason code. Out: lists, pictures, archives, a report by sender, studies back in
the queue. Promise: nothing leaves by itself but by a quota, oldest first, written down before it goes; never
a study on its way, never a result.
"""
