"""Platforms at the wire, for tests: HTTP servers on loopback that answer as the vendors' documents say they do.

Nothing here was compared with a live account. What an emulator does is what the vendor documents and what others
have reported; "emulated" in a test means exactly that.
"""
