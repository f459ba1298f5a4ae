package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	externaljwt "k8s.io/externaljwt/apis/v1"
)

// askSigner asks an external signer as kube-apiserver does, and writes what it
// answers to a file: asksigner SOCKET ISSUER LIFE FILE. The token it writes is
// complete. It waits for the signer.
func askSigner(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: asksigner SOCKET ISSUER LIFE FILE")
	}
	life, err := time.ParseDuration(args[2])
	ts.Check(err)
	conn, err := grpc.NewClient("unix:"+ts.MkAbs(args[0]), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	ts.Check(err)
	defer conn.Close()
	text, err := answers(externaljwt.NewExternalJWTSignerClient(conn), args[1], life)
	if err != nil {
		text += err.Error() + "\n"
	}
	if (err != nil) != neg {
		ts.Fatalf("error %v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text), 0o600))
}

func answers(client externaljwt.ExternalJWTSignerClient, issuer string, life time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	about, err := client.Metadata(ctx, &externaljwt.MetadataRequest{})
	if err != nil {
		return "", err
	}
	keys, err := client.FetchKeys(ctx, &externaljwt.FetchKeysRequest{})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "max %d\nrefresh %d\n", about.MaxTokenExpirationSeconds, keys.RefreshHintSeconds)
	for _, k := range keys.Keys {
		fmt.Fprintf(&out, "key %s excluded %v\n", k.KeyId, k.ExcludeFromOidcDiscovery)
	}
	now := time.Now().Unix()
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"aud":[%q],"exp":%d,"iat":%d,"iss":%q,"kubernetes.io":{"namespace":"ns","serviceaccount":{"name":"sa","uid":"u"}},"nbf":%d,"sub":"system:serviceaccount:ns:sa"}`,
		issuer, now+int64(life.Seconds()), now, issuer, now))
	signed, err := client.Sign(ctx, &externaljwt.SignJWTRequest{Claims: payload})
	if err != nil {
		return out.String(), err
	}
	header, err := base64.RawURLEncoding.DecodeString(signed.Header)
	fmt.Fprintf(&out, "header %s\ntoken %s.%s.%s\n", header, signed.Header, payload, signed.Signature)
	return out.String(), err
}
