"""What the controller works out before a host is asked for anything: who may reach which port, and certificates.

Enters: values of the inventory. Leaves: rules of the firewall, PEM texts, faults in words. The service itself does
not use it: certificates need `cryptography`, which comes with Ansible.
"""
