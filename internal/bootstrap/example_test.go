package bootstrap_test

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

func ExampleJoin_Command() {
	token, err := bootstrap.ParseToken("abcdef.0123456789abcdef")
	if err != nil {
		panic(err)
	}
	endpoint, err := bootstrap.Endpoint("https://10.0.0.11:6443")
	if err != nil {
		panic(err)
	}
	join := bootstrap.Join{Endpoint: endpoint, Token: token}
	fmt.Println(join.Token) // no formatting shows the secret
	fmt.Println(join.Command())
	// Output:
	// abcdef.****************
	// kubeadm join 10.0.0.11:6443 --token abcdef.0123456789abcdef
}
