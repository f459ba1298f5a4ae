// Package kubesource takes what a TLS server or client shows, and whom it trusts,
// from the Kubernetes API: a Secret, a ConfigMap, ClusterTrustBundles, and
// certificates that a signer of certificates.k8s.io issues.
//
//	source, err := kubesource.New(client, kubesource.Config{
//		Pair:   kubesource.Secret{Namespace: "shop", Name: "till-tls"},
//		Bundle: kubesource.TrustBundles("shop.example.com/clients", &metav1.LabelSelector{}),
//	})
//	...
//	go source.Run(ctx)
//	if err := source.WaitReady(ctx); err != nil {
//		...
//	}
//	server := &http.Server{TLSConfig: mtls.ServerConfig(source, mtls.RequireClients)}
//
// Promises:
//
//   - What was good stays when an object is deleted, when it holds what cannot be
//     used, and while the API server is away; [Config].Told hears of it.
//   - One object is watched by its name, a signer's bundles by the signer: nothing
//     else is held in memory.
//   - A change is taken up as soon as the watch tells of it. After the API server
//     was away it takes up to a minute.
//   - No error holds key material.
//
// The rights that it takes are no more than these, of which Secrets and ConfigMaps
// need a Role alone, and only by their names:
//
//	rules:
//	- {apiGroups: [""], resources: [secrets], resourceNames: [till-tls], verbs: [list, watch]}
//	- {apiGroups: [""], resources: [configmaps], resourceNames: [clients], verbs: [list, watch]}
//	- {apiGroups: [certificates.k8s.io], resources: [clustertrustbundles], verbs: [list, watch]}
//	- {apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [create, list, watch]} # Issuer
//
// client-go writes what keeps it from the API server to its own log too (klog).
package kubesource
