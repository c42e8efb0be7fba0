"""What stands between a socket and the routes, at a service and at the centre alike: who may ask, from where, and what
each answer tells a browser. Enters: an ASGI application and tokens. Leaves: the same application, closed by default.
"""
