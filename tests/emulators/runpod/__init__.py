"""RunPod at the wire: REST v2, the job plane, the proxy of pods and the load balancer, in one server on loopback.

RunPod's hosts are told apart by the `Host` header, or where a base URL has been redirected by the path:

    https://api.runpod.io/v2/...                {url}/v2/...                    control plane
    https://api.runpod.ai/v2/{endpoint}/...     {url}/jobs/{endpoint}/...       job plane, `RunPodEmulator.job_url`
    https://{pod}-{port}.proxy.runpod.net/...   {url}/proxy/{pod}/{port}/...    `proxy_url(pod, port)`
    https://{endpoint}.api.runpod.ai/...        {url}/lb/{endpoint}/...         `balancer_url(endpoint)`

Emulated after the vendor's OpenAPI document of August 2026 and what others have reported; never compared with a live
account. Not emulated: templates (a `templateId` is not found), clusters, billing records, spot, the old APIs but for
GraphQL's balance.
"""

from .emulator import KEY, RunPodEmulator

__all__ = ["KEY", "RunPodEmulator"]
