"""The centre: one view of all regions, however many of them answer.

In: the rows each region exports (`fleet_export`), through foreign tables, one region at a time.
Out: the local mart `fleet.studies` and `fleet.freshness`, a page, JSON, metrics, a text table.
Promise: reading never waits for a region; a region that is off, slow or wrong delays no other, and the view
says which and why.
"""
