#!/bin/sh
# One node, in namespaces of its own for network, mounts and processes: containerd with the images, kube-proxy, kubelet.
# Everything ends with the first process of the namespace, and the mounts with it.
# Arguments: its folder, folder of programs, folder of images, folder of logs, name, address.
set -eu
folder=$1 programs=$2 images=$3 logs=$4 name=$5 address=$6
cd "$folder"
PATH=$PATH:/usr/sbin:/sbin
mount --bind lib /var/lib
mount --bind log /var/log
mount -t tmpfs none /run
containerd --config containerd.toml >>"$logs/$name-containerd.log" 2>&1 &
until ctr --address run/containerd.sock version >/dev/null 2>&1; do sleep 0.1; done
for image in "$images"/*.tar; do
  ctr --address run/containerd.sock --namespace k8s.io image import --base-name "localhost/$(basename "$image" .tar)" "$image" >>"$logs/$name-containerd.log" 2>&1
done
"$programs/kube-proxy" --config kube-proxy.yaml >>"$logs/$name-kube-proxy.log" 2>&1 &
"$programs/kubelet" --config kubelet.yaml --kubeconfig kubeconfig --hostname-override "$name" --node-ip "$address" \
  >>"$logs/$name-kubelet.log" 2>&1 &
wait
