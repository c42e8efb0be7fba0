"""The inventory judged whole, on the controller, before any host is asked.

Enters: the inventory's files as they are on disk (`sources`), and the variables of each host as Ansible loaded them.
Leaves: faults, one line each (`fault`), in English or Russian: file, line, value, what is wanted, what to do.
Promised: no secret's value is said, no host is asked, and what is no business of ours passes: names without our
prefixes, groups and hosts of the site's own, inventories that come from a script or a database.

`plugins/callback/outpost_inventory.py` collects what enters and stops the run; `judge` is a pure function.
"""
