"""The manifests and the pages about them, held against a real control plane of Kubernetes.

`control_plane/` builds etcd, the API server, its controllers, the scheduler and kubectl from their own Go modules.
Only the kubelets are played: they start no process. `tests/deploy/cluster` is the counterpart, whose pods are real and
whose control plane is played.
"""
