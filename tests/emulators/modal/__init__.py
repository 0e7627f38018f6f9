"""Modal at the wire: its gRPC control plane, and the web addresses that lead to containers, both on loopback.

`MODAL_SERVER_URL` sends the `modal` package to the control plane; the web address of a function is
`{url}/web/{environment}/{app}/{function}`, in place of `https://{workspace}--{app}-{function}.modal.run`. What runs in
a container is a real llama.cpp server behind the guard that the deployed start script writes.

Emulated after what `modal` 1.6.4 sends and expects back, and after Modal's guides; never compared with a live account.
Not emulated: sandboxes, schedules, calls that are no web requests, the build of images, the bytes in volumes.
"""

from .emulator import ModalEmulator

__all__ = ["ModalEmulator"]
