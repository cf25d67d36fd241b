"""A small cluster on loopback: starts what the Kubernetes manifests say, as they say it.

It plays the parts of Kubernetes that the manifests rely on: the kubelet (`pods`), the Services, DNS and the Gateway
(`network`), the Deployment and Job controllers (`running`), cert-manager and the Secrets (`objects`). What is outside
of the manifests is real, and in `surroundings`. A field of a pod that nobody plays is refused, so that none goes
untried unseen. Where a pod is placed, what it may use up and which system calls it may make have no meaning on one
machine.
"""
