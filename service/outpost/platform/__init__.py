"""What a host is and whether a GPU, a driver, CUDA and a torch build fit together.

In: what roles/platform read from a host, or versions named by hand. Out: facts, and a verdict of lines with codes.
Standard library only: the playbooks' plugins use it on the controller, where the service's libraries are not installed.
"""
