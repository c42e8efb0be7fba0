"""Watching what comes in and what the model makes of it, without keeping any of it.

In: observations of each study (header values, pixel statistics, answers, how it ended). Out: sketches of kilobytes
a day, which merge; alarms when a sender's last weeks differ from the reference.
Promise: no patient data; no study waits for it or fails by it; merging in any order gives the same sketch.
"""
