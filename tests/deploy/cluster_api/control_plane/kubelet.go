package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
)

const (
	nodes      = 6
	zones      = 3
	look       = 200 * time.Millisecond
	heartbeat  = 10 * time.Second
	leaseSpace = "kube-node-lease"
)

// started counts the pods that have an address.
var started int

// kubelets stands for the kubelets of all nodes. No process runs: a pod that a kubelet could start is ready at once,
// one of a Job has succeeded at once, and an image with the tag `broken` is never ready.
type kubelets struct {
	api kubernetes.Interface
}

func runKubelets(arguments []string) error {
	flags := flag.NewFlagSet("kubelets", flag.ExitOnError)
	path := flags.String("kubeconfig", "", "where the API server is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *path)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 1000
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	all := kubelets{api}
	ctx := context.Background()
	for number := range nodes {
		if err := all.register(ctx, number); err != nil {
			return err
		}
	}
	for beaten := time.Now(); ; time.Sleep(look) {
		if time.Since(beaten) > heartbeat {
			beaten = time.Now()
			for number := range nodes {
				report(all.beat(ctx, nodeName(number)))
			}
		}
		pods, err := api.CoreV1().Pods("").List(ctx, meta.ListOptions{})
		if err != nil {
			report(err)
			continue
		}
		for _, pod := range pods.Items {
			report(all.sync(ctx, &pod))
		}
	}
}

func nodeName(number int) string { return fmt.Sprintf("node-%d", number) }

// Somebody else was faster: the next look sees what they did.
func report(err error) {
	if err != nil && !errors.IsConflict(err) && !errors.IsNotFound(err) {
		fmt.Println(err)
	}
}

func (all kubelets) register(ctx context.Context, number int) error {
	name := nodeName(number)
	made := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{
		core.LabelHostname:     name,
		core.LabelTopologyZone: fmt.Sprintf("zone-%d", number%zones),
		core.LabelOSStable:     "linux",
		core.LabelArchStable:   "amd64",
	}}}
	node, err := all.api.CoreV1().Nodes().Create(ctx, made, meta.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status.Capacity = core.ResourceList{
		core.ResourceCPU:              resource.MustParse("16"),
		core.ResourceMemory:           resource.MustParse("64Gi"),
		core.ResourceEphemeralStorage: resource.MustParse("500Gi"),
		core.ResourcePods:             resource.MustParse("110"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.Conditions = []core.NodeCondition{{
		Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now(),
	}}
	if _, err = all.api.CoreV1().Nodes().UpdateStatus(ctx, node, meta.UpdateOptions{}); err != nil {
		return err
	}
	lease := &coordination.Lease{
		ObjectMeta: meta.ObjectMeta{Name: name, Namespace: leaseSpace},
		Spec: coordination.LeaseSpec{
			HolderIdentity: ptr.To(name), LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(meta.NowMicro()),
		},
	}
	_, err = all.api.CoordinationV1().Leases(leaseSpace).Create(ctx, lease, meta.CreateOptions{})
	return err
}

func (all kubelets) beat(ctx context.Context, name string) error {
	lease, err := all.api.CoordinationV1().Leases(leaseSpace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = ptr.To(meta.NowMicro())
	_, err = all.api.CoordinationV1().Leases(leaseSpace).Update(ctx, lease, meta.UpdateOptions{})
	return err
}

func (all kubelets) sync(ctx context.Context, pod *core.Pod) error {
	pods := all.api.CoreV1().Pods(pod.Namespace)
	if pod.Spec.NodeName == "" {
		return nil
	}
	if pod.DeletionTimestamp != nil {
		return pods.Delete(ctx, pod.Name, meta.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	}
	if pod.Status.Phase != core.PodPending {
		return nil
	}
	missing, err := all.missing(ctx, pod)
	if err != nil {
		return err
	}
	before := pod.DeepCopy()
	setStatus(pod, missing)
	if missing != "" && len(before.Status.ContainerStatuses) > 0 &&
		before.Status.ContainerStatuses[0].State.Waiting.Message == missing {
		return nil
	}
	_, err = pods.UpdateStatus(ctx, pod, meta.UpdateOptions{})
	return err
}

// missing names what the pod refers to and what is not there; a kubelet would start no container of it.
func (all kubelets) missing(ctx context.Context, pod *core.Pod) (string, error) {
	for _, volume := range pod.Spec.Volumes {
		if from := volume.Secret; from != nil && !ptr.Deref(from.Optional, false) {
			if found, err := all.hasSecret(ctx, pod.Namespace, from.SecretName); !found {
				return "secret " + from.SecretName, err
			}
		}
		if from := volume.ConfigMap; from != nil && !ptr.Deref(from.Optional, false) {
			if found, err := all.hasConfigMap(ctx, pod.Namespace, from.Name); !found {
				return "configmap " + from.Name, err
			}
		}
	}
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, source := range container.EnvFrom {
			if from := source.SecretRef; from != nil && !ptr.Deref(from.Optional, false) {
				if found, err := all.hasSecret(ctx, pod.Namespace, from.Name); !found {
					return "secret " + from.Name, err
				}
			}
			if from := source.ConfigMapRef; from != nil && !ptr.Deref(from.Optional, false) {
				if found, err := all.hasConfigMap(ctx, pod.Namespace, from.Name); !found {
					return "configmap " + from.Name, err
				}
			}
		}
		for _, variable := range container.Env {
			if variable.ValueFrom == nil || variable.ValueFrom.SecretKeyRef == nil {
				continue
			}
			name := variable.ValueFrom.SecretKeyRef.Name
			if found, err := all.hasSecret(ctx, pod.Namespace, name); !found {
				return "secret " + name, err
			}
		}
	}
	return "", nil
}

func (all kubelets) hasSecret(ctx context.Context, space, name string) (bool, error) {
	_, err := all.api.CoreV1().Secrets(space).Get(ctx, name, meta.GetOptions{})
	return there(err)
}

func (all kubelets) hasConfigMap(ctx context.Context, space, name string) (bool, error) {
	_, err := all.api.CoreV1().ConfigMaps(space).Get(ctx, name, meta.GetOptions{})
	return there(err)
}

func there(err error) (bool, error) {
	if errors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func setStatus(pod *core.Pod, missing string) {
	now := meta.Now()
	state, ready := core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}}, true
	pod.Status.Phase = core.PodRunning
	switch {
	case missing != "":
		pod.Status.Phase, ready = core.PodPending, false
		state = core.ContainerState{
			Waiting: &core.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: missing},
		}
	case pod.Spec.RestartPolicy == core.RestartPolicyNever:
		pod.Status.Phase, ready = core.PodSucceeded, false
		state = core.ContainerState{Terminated: &core.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
	case strings.HasSuffix(pod.Spec.Containers[0].Image, ":broken"):
		ready = false
	}
	if pod.Status.PodIP == "" {
		started++
		pod.Status.PodIP = fmt.Sprintf("10.1.%d.%d", started/250, 1+started%250)
		pod.Status.PodIPs = []core.PodIP{{IP: pod.Status.PodIP}}
	}
	pod.Status.StartTime, pod.Status.ContainerStatuses = &now, nil
	for _, container := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, core.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: ready, State: state, Started: &ready,
		})
	}
	truth := core.ConditionFalse
	if ready {
		truth = core.ConditionTrue
	}
	var kept []core.PodCondition
	for _, condition := range pod.Status.Conditions {
		if condition.Type == core.PodScheduled {
			kept = append(kept, condition)
		}
	}
	for _, kind := range []core.PodConditionType{core.PodInitialized, core.ContainersReady, core.PodReady} {
		kept = append(kept, core.PodCondition{Type: kind, Status: truth, LastTransitionTime: now})
	}
	pod.Status.Conditions = kept
}
