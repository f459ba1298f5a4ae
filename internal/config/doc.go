// Package config reads the configuration of a cluster: kubeadm's own
// (kubeadm.k8s.io/v1beta4 and v1) and that of kubepki (kubepki.dev/v1alpha1,
// kind Cluster). Both become a [catalog.Cluster] with all defaults filled in.
//
// It is strict: a field that is not known, given twice or of the wrong type is
// an [*Error] that names file and field. It reads no file and asks for nothing;
// what kubeadm takes from the machine comes in as [Host].
package config
