"""The lab: host images, containers and links. Standard library only, Python 3.10 or newer.

In: LAB_* environment variables (see settings.py) and a machine with Docker.
Out: running hosts, and under LAB_DIR the SSH key, ssh_config and known_hosts to reach them.
Promise: everything it creates carries the label outpost.lab=<LAB_NAME>; nothing else is touched.
"""
