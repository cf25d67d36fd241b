// The parts of a Kubernetes control plane in one program, each started by its name: `control_plane kube-apiserver …`.
// Linked as `kubectl`, it is kubectl.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	if filepath.Base(os.Args[0]) != "kubectl" && len(os.Args) > 1 {
		os.Args = os.Args[1:]
	}
	part := filepath.Base(os.Args[0])
	if part == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	if part == "kubelets" {
		fmt.Fprintln(os.Stderr, runKubelets(os.Args[1:]))
		os.Exit(1)
	}
	made, known := parts[part]
	if !known {
		fmt.Fprintln(os.Stderr, "name a part: etcd, kubelets, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl")
		os.Exit(2)
	}
	os.Exit(cli.Run(made()))
}
