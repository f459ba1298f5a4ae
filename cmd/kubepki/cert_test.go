package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestCertUsage: what cannot be meant is refused before a cluster is asked.
func TestCertUsage(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	for _, x := range []struct{ command, says string }{
		{`cert status web -A`, `leave one out`},
		{`cert status -A -n shop`, `leave one out`},
		{`cert status --fail-on info`, `unknown severity`},
		{`cert status --expiring soon`, `is not a life`},
		{`cert status -o tree`, `unknown format`},
		{`cert renew`, `name the Certificates`},
		{`cert renew web --all`, `leave one out`},
		{`cert renew web --wait --dry-run`, `--wait`},
		{`cert create x --issuer shop-ca --dns two%20names`, `is no DNS name`},
		{`cert create x --issuer shop-ca --dns a.example.com.`, `no dot at the end`},
		{`cert create x --issuer shop-ca --dns a.*.example.com`, `whole first label`},
		{`cert create x --issuer shop-ca --dns bücher.example.com`, `xn--`},
		{`cert create x --issuer shop-ca --dns a --ip 10.0.0.256`, `10.0.0.256`},
		{`cert create x --issuer shop-ca --dns a --duration 30m`, `an hour at least`},
		{`cert create x --issuer shop-ca --dns a --duration 2h --renew-before 2h`, `renewed for ever`},
		{`cert create x --issuer shop-ca --dns a --renew-before 1m`, `5m at least`},
		{`cert create x --issuer shop-ca --dns a --key rsa-1024`, `unknown key`},
		{`cert create x --issuer shop-ca --dns a --usages all`, `is no usage`},
		{`cert create x --issuer shop-ca --dns a --secret Sec`, `--secret`},
		{`cert create X --issuer shop-ca --dns a`, `is no name of an object`},
		{`cert create x --dns a`, `--issuer`},
		{`cert create x --issuer shop-ca --dns a --dry-run=maybe`, `unknown choice`},
		{`cert create x --issuer shop-ca --dns a --issuer-kind Broker`, `named by both`},
		{`cert create x --issuer shop-ca --dns a --certificate-out x.crt`, `belongs to --request`},
		{`cert why`, `at least 1 arg`},
		{`cert`, `say what to do`},
		{`cert why node/web`, `name a certificate, secret, pod`},
		{`cert why broker.example/web`, `KIND.GROUP/NAME`},
		{`cert approve`, `at least 1 arg`},
		{`cert approve web --reason two%20words`, `is no word`},
		{`cert deny secret/web`, `name a CertificateRequest`},
		{`cert review web`, `--policy`},
		{`cert review --policy p web -f x`, `leave one out`},
		{`cert review --policy p web -A`, `leave names`},
		{`cert review --policy - -f -`, `read once`},
		{`cert review --policy p -o tree`, `unknown format`},
		{`cert why web -o tree`, `unknown format`},
		{`cert why WEB`, `is no name of an object`},
		{`cert why web -n Shop`, `RFC 1123`},
	} {
		t.Run(x.command, func(t *testing.T) {
			args := strings.Fields(x.command)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "%20", " ")
			}
			var out, errs bytes.Buffer
			code := run(t.Context(), args, streams{out: &out, err: &errs})
			if code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), x.says) {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
			}
		})
	}
}
