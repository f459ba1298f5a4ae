package certmanager

import (
	"github.com/prometheus/client_golang/prometheus"
)

var rolloverLabels = []string{"issuer_kind", "issuer_namespace", "issuer_name"}

func rolloverDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("kubepki_workload_ca_rollover_"+name, help, append(rolloverLabels[:len(rolloverLabels):len(rolloverLabels)], more...), nil)
}

// Figures of issuers that are carried over to another CA. Those that are not have the
// first alone.
var (
	descAnchors = rolloverDesc("anchors", "CAs that an issuer publishes: one, but for the time of a rollover.")
	descPhase   = rolloverDesc("phase", "How far the rollover of an issuer is: 1 for the phase, by the reason of its condition CARollover.", "phase")
	descSince   = rolloverDesc("since_timestamp_seconds", "Since when an issuer publishes more than one CA, expressed as a Unix Epoch Time.")
	descLeft    = rolloverDesc("certificates_left", "Certificates of the CAs before, which are to be issued anew.")
	descLacking = rolloverDesc("secrets_lacking", "Secrets that lack a CA which is published: what the switch waits for.")
	descFailing = rolloverDesc("certificates_failing", "Certificates that were tried in vain since the new CA signs.")
)

func describeRollovers(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAnchors, descPhase, descSince, descLeft, descLacking, descFailing} {
		all <- d
	}
}

// views are what is known of all issuers that have been looked at.
func (r *rollovers) views() map[issuerKey]*view {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[issuerKey]*view{}
	for key, o := range r.known {
		if v := o.view.Load(); v != nil {
			all[key] = v
		}
	}
	return all
}

func (r *rollovers) collect(all chan<- prometheus.Metric) {
	for key, v := range r.views() {
		gauge := func(d *prometheus.Desc, value float64, more ...string) {
			all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{key.kind(), key.namespace, key.name}, more...)...)
		}
		gauge(descAnchors, float64(len(v.record.Anchors)))
		if len(v.record.Anchors) < 2 {
			continue
		}
		_, reason, _ := v.condition()
		gauge(descPhase, 1, reason)
		gauge(descSince, float64(v.record.Begun.Unix()))
		gauge(descLeft, float64(v.left()))
		gauge(descLacking, float64(v.lacking()))
		gauge(descFailing, float64(v.seen.failing))
	}
}
