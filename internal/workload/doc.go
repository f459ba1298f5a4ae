// Package workload decides on the certificates of workloads, as the API
// cert-manager.io describes them: what a Certificate wishes, whether the Secret that
// there is fulfils it, what is to be asked and signed, and what Secret, conditions and
// annotations come of it. It computes; who reads and writes is package certmanager.
//
// The types of the API are cert-manager's own.
package workload

import cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

// DefaultDuration is the life of a certificate whose spec names none.
const DefaultDuration = cmapi.DefaultCertificateDuration
