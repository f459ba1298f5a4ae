// Package kubelet makes a node of the lab one that runs the real kubelet.
//
// [Prepare] writes what `kubeadm join` leaves on a node before the kubelet
// starts, in the places that kubeadm uses, and tells how to start it. From then
// on the kubelet does by itself what it does everywhere: it shows its bootstrap
// token, asks for a client certificate, writes /etc/kubernetes/kubelet.conf,
// asks for a serving certificate, and renews both.
package kubelet
